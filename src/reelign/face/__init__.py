"""Reelign from Python: load, sample, score, align, as a notebook types them. The command line does the same by it."""
