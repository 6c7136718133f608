"""Held-out measures, never trained on, one file each."""
