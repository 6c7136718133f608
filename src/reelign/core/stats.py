"""Intervals on what we report; every bootstrap names its seed."""

import math
from statistics import NormalDist
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reelign.core import rng


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


def mean_interval(
    values: Float[Tensor, " n"],
    *,
    seed: int,
    groups: Int[Tensor, " n"] | None = None,
    level: float = 0.95,
    draws: int = 2000,
) -> Interval:
    """Mean with a percentile bootstrap interval.

    Args:
        values: one per sample.
        seed: of the resampling.
        groups: id of the prompt each sample belongs to. Whole prompts are then resampled; samples of one prompt are
            alike, and treating them as independent would make the interval too narrow.
        level: coverage, in (0, 1).
        draws: number of resamples.

    Raises:
        ValueError: without values, or for a level outside (0, 1).
    """
    if values.numel() == 0:
        raise ValueError("there are no values to average")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, but it must lie in (0, 1)")
    values = values.double()
    sums, counts = _cluster(values, groups)
    chosen = torch.randint(len(sums), (draws, len(sums)), generator=rng.generator(seed))
    means = sums[chosen].sum(dim=1) / counts[chosen].sum(dim=1)
    tail = (1 - level) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=means.dtype)).tolist()
    return Interval(values.mean().item(), low, high)


def paired_difference(
    ours: Float[Tensor, " n"],
    theirs: Float[Tensor, " n"],
    *,
    seed: int,
    groups: Int[Tensor, " n"] | None = None,
    level: float = 0.95,
    draws: int = 2000,
) -> Interval:
    """Mean of ``ours - theirs`` where both saw the same prompts and seeds; see `mean_interval`."""
    return mean_interval(ours - theirs, seed=seed, groups=groups, level=level, draws=draws)


def rate_ratio(hits: int, total: int, other_hits: int, other_total: int, level: float = 0.95) -> Interval:
    """Ratio of two success rates with its interval on the log scale (Katz et al. 1978).

    Args:
        hits: successes of ours.
        total: trials of ours.
        other_hits: successes of the other.
        other_total: trials of the other.
        level: coverage, in (0, 1).

    Returns:
        ``(hits / total) / (other_hits / other_total)``. If either count of successes is 0, half a success is added
        to both (and one trial), so that the limits stay finite.

    Raises:
        ValueError: for counts that are not ``0 <= hits <= total``, ``total >= 1``.
    """
    for successes, trials in ((hits, total), (other_hits, other_total)):
        if trials < 1 or not 0 <= successes <= trials:
            raise ValueError(f"{successes} successes in {trials} trials is not possible")
    add = 0.5 if 0 in (hits, other_hits) else 0.0
    a, n, b, m = hits + add, total + 2 * add, other_hits + add, other_total + 2 * add
    centre = math.log(a / n) - math.log(b / m)
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(1 / a - 1 / n + 1 / b - 1 / m)
    return Interval(math.exp(centre), math.exp(centre - half), math.exp(centre + half))


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


def _cluster(values: Tensor, groups: Tensor | None) -> tuple[Tensor, Tensor]:
    if groups is None:
        return values, torch.ones_like(values)
    _, index = groups.unique(return_inverse=True)
    size = int(index.max()) + 1
    sums = values.new_zeros(size).index_add_(0, index, values)
    return sums, values.new_zeros(size).index_add_(0, index, torch.ones_like(values))
