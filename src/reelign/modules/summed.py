"""Add the rewards as they are, then compare: plain GRPO, and the mixed reward of self-paced training."""

from dataclasses import replace
from typing import Literal

from reelign.engines import combine
from reelign.engines.slots import Module
from reelign.parts import PartConfig


class Config(PartConfig):
    """The weighted sum of raw rewards, which should share a scale."""

    name: str = "summed"
    scale: Literal["group", "global", "max_group"] = "group"
    """Whose spread is the unit of an advantage."""


def build(config: Config) -> Module:
    """One reward from several, before groups are compared."""
    return Module("summed", lambda slots: replace(slots, combine=combine.summed(config.scale)), frozenset({"combine"}))
