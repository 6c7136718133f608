"""Compare reward by reward, then add: what most methods do anyway, here with a unit of one's choice."""

from dataclasses import replace
from typing import Literal

from reelign.engines import combine
from reelign.engines.slots import Module
from reelign.parts import PartConfig


class Config(PartConfig):
    """GDPO (arXiv 2601.05242); with `max_group` LongCat-Video's unit (2510.22200)."""

    name: str = "gdpo"
    scale: Literal["group", "global", "max_group"] = "global"
    """Whose spread is the unit of an advantage."""


def build(config: Config) -> Module:
    """Decoupled normalisation of several rewards."""
    return Module("gdpo", lambda slots: replace(slots, combine=combine.gdpo(config.scale)), frozenset({"combine"}))
