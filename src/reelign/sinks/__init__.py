"""Sinks: who is told what happens in a run. One file each."""
