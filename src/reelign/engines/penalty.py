"""Penalties that hold a policy near a reference."""

from dataclasses import replace

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
    steps = form == "step"
    if any(penalty.name == NAMES[form] for penalty in slots.penalties):
        raise BadConfig(f"there are two penalties on the {form} difference to the reference; keep one of them.")
    penalty = Penalty(NAMES[form], weight, (lambda gap: gap.step()) if steps else (lambda gap: gap.velocity()))
    return replace(
        slots,
        penalties=(*slots.penalties, penalty),
        needs=slots.needs | {"reference"},
        demands=slots.demands | (STEPS if steps else frozenset()),
    )
