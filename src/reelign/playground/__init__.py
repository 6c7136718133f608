"""The playground: a world small enough for a laptop, whose ground truth is known exactly.

Everyone knows `world`. Three pairs of eyes look at its clips and do not know each other: `detector` gives rewards,
`judge` holds out measures, `oracle` says where a clip is wrong. `make` makes the packaged tiny generator.
"""

from pathlib import Path

PIPELINE = Path(__file__).parent / "pipeline"
"""Folder of the packaged generator."""
