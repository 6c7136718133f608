"""Credit exactly where the playground knows that a clip is wrong: the upper bound for what a map can do."""

from dataclasses import replace

from pydantic import Field

from reelign.batches import Scored
from reelign.core import allocation
from reelign.engines.slots import PLACES, Given, Module, Notes, Slots
from reelign.parts import PartConfig
from reelign.playground.fault import fault, pooled


class Config(PartConfig):
    """The playground's oracle map in place of ViPO's."""

    name: str = "oracle"
    floor: float = Field(default=0.02, gt=0)
    """Added everywhere to a map in [0, 1], so that right clips get credit everywhere and wrong ones a little."""
    clip: float = Field(default=0.1, gt=0)
    """Half-width of the trust region of single places."""


def build(config: Config) -> Module:
    """Dense advantages from the truth."""

    def spread(given: Given, scored: Scored, notes: Notes) -> Given:
        assert scored.videos is not None
        x0, prompts = scored.trajectories.x0, scored.trajectories.prompts
        maps = pooled(fault(scored.videos, prompts.repeated), (x0.shape[-3], x0.shape[-2], x0.shape[-1]))
        notes.metrics["map_mean"] = maps.mean().item()
        maps = allocation.mean_one((maps + config.floor).to(x0))
        return replace(given, advantage=allocation.dense(given.advantage, maps))

    def fill(slots: Slots) -> Slots:
        return replace(
            slots,
            spread=(*slots.spread, spread),
            dense_clip=config.clip,
            needs=slots.needs | {"videos"},
            demands=slots.demands | PLACES,
        )

    return Module("oracle", fill, frozenset({"places"}))
