"""Judging runs: gates between stages."""
