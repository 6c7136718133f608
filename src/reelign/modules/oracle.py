"""Credit exactly where the playground knows that a clip is wrong: the upper bound for what a map can do."""

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from reelign.batches import Scored
from reelign.core import allocation
from reelign.engines import allocate
from reelign.engines.slots import Module, Notes
from reelign.parts import PartConfig
from reelign.playground.oracle.fault import fault, pooled


class Config(PartConfig):
    """The playground's oracle map in place of ViPO's."""

    name: str = "oracle"
    floor: float = Field(default=0.02, ge=1e-6, le=1e3)
    """Added everywhere to a map in [0, 1], so that right clips get credit everywhere and wrong ones a little."""
    clip: float = Field(default=0.1, gt=0, le=1e3)
    """Half-width of the trust region of single places."""


def build(config: Config) -> Module:
    """Dense advantages from the truth."""

    def maps(scored: Scored, notes: Notes) -> Float[Tensor, "b f h w"]:
        assert scored.videos is not None
        x0, prompts = scored.trajectories.x0, scored.trajectories.prompts
        found = pooled(fault(scored.videos, prompts.repeated), (x0.shape[-3], x0.shape[-2], x0.shape[-1]))
        notes.metrics["map_mean"] = found.mean().item()
        return allocation.mean_one((found + config.floor).to(x0))

    return Module("oracle", lambda slots: allocate.placed(slots, maps, config.clip), frozenset({"places"}))
