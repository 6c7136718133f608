"""Frozen backbones: one file each.

A `Config` and a `build(config, device)` that gives a callable from `Videos` to patch features `[b f n m d]` of their
frames, float32 and without gradients; prompts are not read.
"""
