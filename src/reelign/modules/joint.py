"""How to balance: the shortest convex combination of the rewards' advantages, along which none of them loses."""

from dataclasses import replace
from typing import Literal

from reelign.engines import combine
from reelign.engines.slots import Module
from reelign.parts import PartConfig


class Config(PartConfig):
    """Min-norm in advantage space (TeleBoost, arXiv 2602.07595; MGDA). A larger weight asks for more of a reward."""

    name: str = "joint"
    space: Literal["batch", "group"] = "batch"
    """One balance for the whole batch, or one for each prompt."""
    scale: Literal["group", "global", "max_group"] = "global"
    """Whose spread is the unit of each reward's advantage. Two rewards of equal spread always get one half each."""
    unit: bool = True
    """Bring the combination to unit spread again; without it, it is short where rewards conflict."""


def build(config: Config) -> Module:
    """Min-norm balance of several rewards."""
    fill = combine.min_norm(config.scale, per_group=config.space == "group", unit=config.unit)
    return Module("joint", lambda slots: replace(slots, combine=fill), frozenset({"combine"}))
