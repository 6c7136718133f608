"""Intervals on what we report; every bootstrap names its seed."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.core import rng

PROMPTS_SEED = 0
"""Of every bootstrap over prompts, so that a gate and a table do not tell two intervals of one thing."""


class Interval(NamedTuple):
    """An estimate with its confidence limits."""

    estimate: float
    low: float
    high: float


class WinRates(NamedTuple):
    """Summary of good / same / bad judgements; `good` means that ours was preferred.

    Attributes:
        win_rate: share of wins among decided comparisons, ``G / (G + B)``; NaN when none is decided.
        preference: wins plus half the ties, ``(G + S / 2) / N``.
        margin: wins minus losses, ``(G - B) / N``, in [-1, 1].
    """

    win_rate: float
    preference: float
    margin: float


def over_prompts(
    values: Sequence[float], prompts: Sequence[int], level: float = 0.95, *, seed: int = PROMPTS_SEED
) -> Interval:
    """Mean of values of clips with a percentile bootstrap interval: where another draw of prompts would leave it.

    Whole prompts are resampled; clips of one prompt are alike, and treating them as independent would make the interval
    too narrow. As many resamples are drawn as put ten into each tail, and at least 2000.

    Args:
        values: one a clip; differences, where clips are compared in pairs.
        prompts: id of each clip's prompt.
        level: coverage, in (0, 1).
        seed: of the resampling.

    Raises:
        ValueError: without values, or for a level outside (0, 1).
    """
    if not values:
        raise ValueError("there are no values to average")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, but it must lie in (0, 1)")
    rank = {prompt: k for k, prompt in enumerate(sorted(set(prompts)))}
    groups = torch.tensor([rank[prompt] for prompt in prompts], dtype=torch.int64)
    each, cells = torch.tensor(values, dtype=torch.float64), torch.zeros(len(rank), dtype=torch.float64)
    sums, counts = cells.index_add(0, groups, each), cells.index_add(0, groups, torch.ones_like(each))
    draws = max(2000, round(20 / (1 - level)))
    chosen = torch.randint(len(sums), (draws, len(sums)), generator=rng.generator(seed))
    means = sums[chosen].sum(dim=1) / counts[chosen].sum(dim=1)
    tail = (1 - level) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=means.dtype)).tolist()
    return Interval(each.mean().item(), low, high)


class Draws(NamedTuple):
    """How much each seed's and each prompt's deviation counts in each draw of a bootstrap over both."""

    seeds: Float[Tensor, "d s"]
    prompts: Float[Tensor, "d p"]


class Crossed(NamedTuple):
    """A mean over seeds and prompts, and how far each of the two may have moved it.

    Attributes:
        estimate: the mean.
        of_seeds: its variance from the draw of seeds, on their number minus 1 degrees of freedom; 0 for a single seed.
        of_prompts: its variance from the draw of prompts.
        seed_draws: deviations of the mean in a bootstrap of seeds, with that variance.
        prompt_draws: the same for prompts.
    """

    estimate: float
    of_seeds: float
    of_prompts: float
    seed_draws: Float[Tensor, " d"]
    prompt_draws: Float[Tensor, " d"]


def crossed_draws(seeds: int, prompts: int, *, seed: int, draws: int = 4000) -> Draws:
    """A bootstrap over training seeds, and within each draw over the prompts that all seeds share.

    It multiplies deviations by Gaussian numbers (Wu 1986) where the usual one takes some seeds twice and others not at
    all: of three seeds that makes ten different means, whose tails say nothing. Statistics that use the same draws stay
    paired.
    """
    sizes = (("seeds", seeds), ("prompts", prompts))
    return Draws(*(rng.normal((draws, n), seed=rng.seed_for(seed, what), dtype=torch.float64) for what, n in sizes))


def crossed_mean(sums: Float[Tensor, "s p"], counts: Float[Tensor, "s p"], draws: Draws) -> Crossed:
    """Mean of values that each belong to a training seed and to a prompt, where all seeds saw the same prompts.

    Args:
        sums: of the values of each seed and prompt.
        counts: how many values that are; 0 where a measure does not apply.
        draws: from `crossed_draws`.

    Raises:
        ValueError: without values.
    """
    total = counts.double().sum()
    if total == 0:
        raise ValueError("there are no values to average")
    mean = sums.double().sum() / total
    residual = (sums.double() - mean * counts.double()) / total
    known = counts.sum(dim=0) > 0
    seeds, prompts = _unbiased(residual.sum(dim=1)), _unbiased(residual.sum(dim=0)[known])
    return Crossed(
        mean.item(),
        seeds.square().sum().item(),
        prompts.square().sum().item(),
        draws.seeds @ seeds,
        draws.prompts[:, known] @ prompts,
    )


def _unbiased(deviations: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Deviations whose squares add up to the variance of a mean: one degree of freedom went into the mean itself."""
    n = len(deviations)
    return deviations * math.sqrt(n / (n - 1)) if n > 1 else torch.zeros_like(deviations)


def first_crossing(x: Float[Tensor, "d c"], y: Float[Tensor, "d c"], level: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """Where lines through points (x, y) first reach a level from below; infinite where they do not.

    Example:
        >>> x, y = torch.tensor([[0.0, 10.0, 20.0]]), torch.tensor([[1.0, 2.0, 4.0]])
        >>> first_crossing(x, y, torch.tensor([3.0])), first_crossing(x, y, torch.tensor([5.0]))
        (tensor([15.]), tensor([inf]))
    """
    level = level[:, None]
    above = y >= level
    rise = (y[:, 1:] - y[:, :-1]).clamp_min(torch.finfo(y.dtype).tiny)
    share = ((level - y[:, :-1]) / rise).clamp(0, 1)
    between = torch.where(above[:, 1:] & ~above[:, :-1], x[:, :-1] + share * (x[:, 1:] - x[:, :-1]), math.inf)
    start = torch.where(above[:, :1], x[:, :1], math.inf)
    return torch.cat([start, between], dim=1).amin(dim=1)


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): without any effect, one in twenty families has one below 0.05.

    Example:
        >>> holm([0.04, 0.01, 0.03])
        [0.06, 0.03, 0.06]
    """
    corrected, largest = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        corrected[index] = largest
    return corrected


def win_rates(good: int, same: int, bad: int) -> WinRates:
    """Three readings of good / same / bad counts, which differ in what they make of ties.

    Example:
        >>> win_rates(50, 30, 20).preference
        0.65

    Raises:
        ValueError: for negative counts or no judgement at all.
    """
    total = good + same + bad
    if min(good, same, bad) < 0 or total == 0:
        raise ValueError(f"got {good} good, {same} same, {bad} bad; counts must be non-negative and not all 0")
    decided = good + bad
    return WinRates(good / decided if decided else math.nan, (good + same / 2) / total, (good - bad) / total)
