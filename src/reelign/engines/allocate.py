"""Advantage to advantage: which samples and places train, and how much."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.batches import Scored
from reelign.core import allocation
from reelign.engines.slots import PLACES, Allocate, Check, Demand, Given, Glance, Notes, Slots
from reelign.errors import BadConfig

Seen = Callable[[Glance], Float[Tensor, "b f h w"]]
"""What a map is made of, seen in decoded samples: values over the latent grid."""
Maps = Callable[[Float[Tensor, "b f h w"], Notes], Float[Tensor, "b f h w"]]
"""What was seen in a whole rollout to weights of at least 0."""
MAP = "map"
"""Where what was seen is kept until then."""


def placed(slots: Slots, seen: Seen, maps: Maps, clip: float) -> Slots:
    """Slots whose credit is shared out over places by maps of the decoded frames (ViPO, arXiv 2511.18719).

    Args:
        slots: of a policy-gradient method.
        seen: looks at the frames.
        maps: makes weights of it.
        clip: half-width of the trust region of single places, whose log-ratios vary far more than means.
    """

    def allocate(given: Given, scored: Scored, notes: Notes) -> Given:
        return replace(given, advantage=allocation.dense(given.advantage, maps(scored.seen[MAP], notes)))

    return replace(
        slots,
        allocate=(*slots.allocate, allocate),
        dense_clip=clip,
        sees=(*slots.sees, lambda glance: {MAP: seen(glance)}),
        demands=slots.demands | PLACES,
    )


def extremes(keep: int) -> Allocate:
    """Train on the best and the worst members of each group only, half of `keep` each (DanceGRPO, arXiv 2505.07818)."""

    def allocate(given: Given, scored: Scored, notes: Notes) -> Given:
        group = scored.trajectories.prompts.group
        order = given.advantage.reshape(-1, group).argsort(dim=1, stable=True)
        chosen = torch.zeros_like(order, dtype=torch.bool)
        chosen.scatter_(1, torch.cat([order[:, : keep // 2], order[:, group - keep // 2 :]], dim=1), True)
        return replace(given, teaches=given.teaches & chosen.flatten())

    return allocate


def extremes_fit(keep: int) -> Check:
    """Refuse a number of members that is odd or more than the group has."""

    def check(demand: Demand) -> None:
        if keep % 2 or keep > demand.group:
            raise BadConfig(
                f"method.keep is {keep}, but it must be even (as many best as worst) and at most the stage's group of "
                f"{demand.group}."
            )

    return check
