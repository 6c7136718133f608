"""Stages: one file each; a `Config`, and a `build` that gives what the driver runs."""
