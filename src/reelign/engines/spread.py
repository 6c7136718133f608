"""Advantage to advantage: which samples train, and how much."""

from dataclasses import replace

import torch

from reelign.batches import Scored
from reelign.engines.slots import Check, Demand, Given, Notes, Spread
from reelign.errors import BadConfig


def extremes(keep: int) -> Spread:
    """Train on the best and the worst members of each group only, half of `keep` each (DanceGRPO, arXiv 2505.07818)."""

    def spread(given: Given, scored: Scored, notes: Notes) -> Given:
        group = scored.trajectories.prompts.group
        order = given.advantage.reshape(-1, group).argsort(dim=1, stable=True)
        chosen = torch.zeros_like(order, dtype=torch.bool)
        chosen.scatter_(1, torch.cat([order[:, : keep // 2], order[:, group - keep // 2 :]], dim=1), True)
        return replace(given, kept=given.kept & chosen.flatten())

    return spread


def extremes_fit(keep: int) -> Check:
    """Refuse a number of members that is odd or more than the group has."""

    def check(demand: Demand) -> None:
        if keep % 2 or keep > demand.group:
            raise BadConfig(
                f"method.keep is {keep}, but it must be even (as many best as worst) and at most the stage's group of "
                f"{demand.group}."
            )

    return check
