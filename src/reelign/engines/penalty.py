"""Penalties that hold a policy near a reference."""

from collections.abc import Mapping
from dataclasses import replace
from operator import methodcaller
from typing import Any

from torch import Tensor

from reelign.batches import Credited
from reelign.engines.slots import STEPS, Penalty, Slots
from reelign.errors import BadConfig

NAMES = {"step": "reference_kl", "velocity": "reference_velocity"}


def add(slots: Slots, form: str, weight: float | str) -> Slots:
    """Slots with one more penalty, which needs the reference.

    Args:
        slots: of a method.
        form: ``step``, the exact divergence of each stochastic step, whose size depends on kernel, window and number of
            steps; or ``velocity``, the mean squared difference of the velocities, the same at every noise level.
        weight: a number, or the name under which memory keeps one that adapts.

    Raises:
        BadConfig: there is one of that form already.
    """
    if any(penalty.name == NAMES[form] for penalty in slots.penalties):
        raise BadConfig(f"there are two penalties on the {form} difference to the reference; keep one of them.")
    return replace(
        slots,
        penalties=(*slots.penalties, Penalty(NAMES[form], weight, methodcaller(form))),
        needs=slots.needs | {"reference"},
        demands=slots.demands | (STEPS if form == "step" else frozenset()),
    )


def added(
    each: Tensor,
    gap: Any,
    slots: Slots,
    memory: Mapping[str, Tensor],
    batch: Credited,
    rows: slice | Tensor,
    metrics: dict[str, Tensor],
) -> Tensor:
    """The losses of those of some `rows` that teach, with what the slots' penalties make of a gap at these rows.

    Each penalty's own mean goes into `metrics`.
    """
    teaches = batch.teaches[rows]
    for penalty in slots.penalties:
        pull = penalty.measure(gap)[teaches]
        metrics[penalty.name] = pull.detach().mean()
        restraint = 1 if batch.restraint is None else batch.restraint[rows][teaches]
        each = each + penalty.now(memory) * restraint * pull
    return each
