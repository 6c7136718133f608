"""The playground: a world small enough for a laptop, whose ground truth is known exactly.

`tables` fixes every number, `scene` says what can happen, `grammar` says it in words, `motion` moves it, `render`
draws it, `defects` breaks it on purpose, `codec` turns pixels into latents, and `pretrain` makes the packaged tiny
generator from it.
"""

from pathlib import Path

PIPELINE = Path(__file__).parent / "pipeline"
"""Folder of the packaged generator."""
