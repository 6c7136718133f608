"""How several rewards become one advantage: compared and added, added and compared, or balanced so that none loses."""

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import model_validator

from reelign.engines.combine import gdpo, min_norm, summed
from reelign.engines.slots import Slots
from reelign.parts import PartConfig


class Config(PartConfig):
    """GDPO (arXiv 2601.05242), a plain sum, or min-norm in advantage space (TeleBoost, arXiv 2602.07595; MGDA)."""

    name: str = "combine"
    replaces: ClassVar = frozenset({"combine"})
    form: Literal["gdpo", "sum", "min_norm"] = "gdpo"
    """gdpo: compare reward by reward, then add, as most methods do. sum: add raw rewards, which should share a scale,
    then compare. min_norm: the shortest convex combination of the advantages; a larger weight asks for more of it."""
    scale: Literal["group", "global", "max_group"] | None = None
    """Whose spread is the unit of an advantage (max_group: LongCat-Video, 2510.22200); None: group for sum, else
    global. Under min_norm two rewards of equal spread always get one half each."""
    space: Literal["batch", "group"] = "batch"
    """Of min_norm: one balance for the whole batch, or one for each prompt."""
    unit: bool = True
    """Of min_norm: bring the combination to unit spread again; without it, it is short where rewards conflict."""

    @model_validator(mode="after")
    def _of_min_norm(self) -> "Config":
        if self.form != "min_norm" and (self.space != "batch" or not self.unit):
            raise ValueError(f"space and unit belong to form: min_norm, but form is {self.form}; leave them out")
        return self


def fill(config: Config, slots: Slots) -> Slots:
    """One advantage from several rewards."""
    scale = config.scale or ("group" if config.form == "sum" else "global")
    if config.form == "min_norm":
        own = min_norm(scale, per_group=config.space == "group", unit=config.unit)
    else:
        own = (summed if config.form == "sum" else gdpo)(scale)
    return replace(slots, combine=own)
