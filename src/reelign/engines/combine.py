"""Several rewards into one advantage. A reward "base/extra" is added to its base before bases are balanced."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.batches import Scored
from reelign.core import advantage
from reelign.engines.min_norm import balance
from reelign.engines.slots import Combine, Notes, bases


def compared(scored: Scored, scale: str) -> Float[Tensor, "k p g"]:
    """Each base's own advantage: its reward and what was derived from it, each compared within groups."""
    parts: dict[str, Tensor] = {}
    for name, reward in sorted(scored.rewards.items()):
        base = name.partition("/")[0]
        # The base itself has weight 1 here: its weight among the others is applied later.
        own = advantage.group(reward, scale=scale) * (1.0 if name == base else scored.weights[name])
        parts[base] = parts[base] + own if base in parts else own
    return torch.stack([parts[base] for base in bases(scored)])


def gdpo(scale: str = "global") -> Combine:
    """Compare reward by reward, add, and bring the sum to unit spread again (GDPO, arXiv 2601.05242)."""

    def combine(scored: Scored, weights: Float[Tensor, "k p"], notes: Notes) -> Float[Tensor, "p g"]:
        total = (weights[..., None] * compared(scored, scale)).sum(dim=0)
        return advantage.group(total, scale=scale)

    return combine


def summed(scale: str = "group") -> Combine:
    """Add the rewards as they are, then compare (GRPO with one reward; several need one scale)."""

    def combine(scored: Scored, weights: Float[Tensor, "k p"], notes: Notes) -> Float[Tensor, "p g"]:
        row = dict(zip(bases(scored), weights, strict=True))
        total = sum(
            (row[name.partition("/")[0]][:, None] * _share(name, scored.weights) * r)
            for name, r in sorted(scored.rewards.items())
        )
        assert isinstance(total, Tensor)
        return advantage.group(total, scale=scale)

    return combine


def min_norm(scale: str = "global", *, per_group: bool = False, unit: bool = True) -> Combine:
    """The shortest convex combination of the rewards' advantages: no reward loses along it (TeleBoost, 2602.07595).

    Weights are preferences: among rewards that do not conflict, each gets its share of them. Weights that differ from
    prompt to prompt keep that ratio within a batch's one balance. With `unit` the combination is brought to unit spread
    again, so that conflict lowers no learning rate; without it, it keeps its length, near 0 under full conflict.
    """

    def combine(scored: Scored, weights: Float[Tensor, "k p"], notes: Notes) -> Float[Tensor, "p g"]:
        rows = compared(scored, scale)
        if per_group:
            balances = [balance(rows[:, p], weights[:, p].tolist()) for p in range(rows.shape[1])]
            total = torch.stack([each.combined for each in balances])
            shares = torch.stack([each.weights for each in balances]).mean(dim=0)
            conflict = torch.stack([each.conflict for each in balances]).mean()
            length = torch.stack([each.value for each in balances]).mean()
        else:
            usual = weights.mean(dim=1)
            paced = rows * (weights / usual[:, None])[..., None]
            one = balance(paced.flatten(1), usual.tolist())
            total, shares, conflict, length = one.combined.reshape(rows.shape[1:]), one.weights, one.conflict, one.value
        for name, share in zip(bases(scored), shares.tolist(), strict=True):
            notes.metrics[f"balance/weight/{name}"] = share
        notes.metrics["balance/conflict"] = conflict.item()
        notes.metrics["balance/min_norm"] = length.item()
        # One balance for the batch is brought to unit spread as a whole: each group's own spread would undo it.
        own = "global" if scale == "group" and not per_group else scale
        return advantage.group(total, scale=own) if unit else total

    return combine


def _share(name: str, weights: Mapping[str, float]) -> float:
    return weights[name] if "/" in name else 1.0
