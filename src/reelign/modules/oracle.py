"""Credit exactly where the playground knows that a clip is wrong: the upper bound for what a map can do."""

from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from reelign.batches import texts
from reelign.core import allocation
from reelign.engines import allocate
from reelign.engines.slots import Glance, Notes, Slots
from reelign.parts import PartConfig
from reelign.playground.oracle.fault import fault, pooled


class Config(PartConfig):
    """The playground's oracle map in place of ViPO's."""

    name: str = "oracle"
    replaces: ClassVar = frozenset({"places"})
    floor: float = Field(default=0.02, ge=1e-6, le=1e3)
    """Added everywhere to a map in [0, 1], so that right clips get credit everywhere and wrong ones a little."""
    clip: float = Field(default=0.1, gt=0, le=1e3)
    """Half-width of the trust region of single places."""


def fill(config: Config, slots: Slots) -> Slots:
    """Dense advantages from the truth."""

    def seen(glance: Glance) -> Float[Tensor, "b f h w"]:
        asked, grid = texts(glance.prompts.repeated), glance.x0.shape[-3:]
        return pooled(fault(glance.videos, asked), (grid[0], grid[1], grid[2])).to(glance.x0)

    def maps(found: Float[Tensor, "b f h w"], notes: Notes) -> Float[Tensor, "b f h w"]:
        notes.metrics["map_mean"] = found.mean().item()
        return allocation.mean_one(found + config.floor)

    return allocate.placed(slots, seen, maps, config.clip)
