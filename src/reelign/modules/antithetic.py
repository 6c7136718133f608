"""Pairs of members with opposite noise: the same rewards' mean with less variance."""

from dataclasses import replace

from reelign.batches import Prompts
from reelign.engines.slots import NOISE, Demand, Slots
from reelign.errors import BadConfig
from reelign.parts import PartConfig
from reelign.rollouts import Exploration


class Config(PartConfig):
    """Antithetic step noise within a group (members 0 and 1, 2 and 3, ...)."""

    name: str = "antithetic"


def _even(demand: Demand) -> None:
    if demand.group % 2:
        raise BadConfig(f"antithetic noise comes in pairs, but the stage's group is {demand.group}; make it even.")


def fill(config: Config, slots: Slots) -> Slots:
    """Opposite noise for neighbouring members."""
    inner = slots.select

    def draw(steps: int, prompts: Prompts, seed: int, iteration: int) -> Exploration:
        return replace(inner.draw(steps, prompts, seed, iteration), antithetic=True)

    return replace(
        slots, select=replace(inner, draw=draw), checks=(*slots.checks, _even), demands=slots.demands | NOISE
    )
