"""A pull to a reference: frozen, moving along, or reset; with a weight that is fixed or aims at a divergence."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field

from reelign.engines import follow, penalty
from reelign.engines.slots import Notes, Slots
from reelign.parts import PartConfig
from reelign.weights import Reference

FACTOR = 1.5
"""How far off its target a divergence must be for the weight to change, and by how much it then changes."""
WEIGHT = "kl/weight"


class Config(PartConfig):
    """Divergence from the reference, with a gradient; the adaptive weight is that of PPO (arXiv 1707.06347, sec. 4)."""

    name: str = "kl"
    replaces: ClassVar = frozenset({"reference"})
    weight: float = Field(default=0.1, gt=0, le=1e6)
    """At the start."""
    form: Literal["step", "velocity"] = "step"
    """The exact divergence of stochastic steps, or the mean squared velocity difference, which every method has."""
    target: float | None = Field(default=None, gt=0)
    """Raise or lower the weight until the divergence is near this; None keeps the weight."""
    reference: Literal["start", "average", "reset"] = "start"
    """The weights that entered the stage; a slow average of the policy; or the policy itself, taken again and again."""
    decay: float = Field(default=0.99, gt=0, lt=1)
    """Of the average, for each iteration."""
    every: int = Field(default=15, ge=1)
    """Iterations after which the reference is reset."""
    above: float | None = Field(default=None, gt=0)
    """Reset as soon as the divergence is above this, too."""


def fill(config: Config, slots: Slots) -> Slots:
    """A penalty on the way to the reference."""
    metric = penalty.NAMES[config.form]

    def begin(texts: object, score: object, notes: Notes) -> None:
        notes.memory[WEIGHT] = torch.tensor(config.weight)
        notes.memory["kl/since"] = torch.zeros(())

    def adapt(reference: Reference, metrics: Mapping[str, float], notes: Notes) -> None:
        if config.target is not None and metric in metrics:
            weight = notes.memory[WEIGHT]
            if metrics[metric] > FACTOR * config.target:
                weight = weight * FACTOR
            elif metrics[metric] < config.target / FACTOR:
                weight = weight / FACTOR
            notes.memory[WEIGHT] = weight
            notes.metrics["kl_weight"] = weight.item()

    def move(reference: Reference, metrics: Mapping[str, float], notes: Notes) -> None:
        if config.reference == "average":
            reference.follow(config.decay)
        elif config.reference == "reset":
            far = config.above is not None and metrics.get(metric, 0.0) > config.above
            due = follow.is_due(notes, "kl/since", config.every, far)
            if due:
                reference.start()
            notes.metrics["reference_reset"] = float(due)

    slots = penalty.add(slots, config.form, WEIGHT)
    return replace(slots, begin=(*slots.begin, begin), after=(*slots.after, adapt, move))
