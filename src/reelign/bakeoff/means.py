"""Means over seeds and prompts with their uncertainty, told by all entries together.

Two or three values say little about how far a training seed moves a mean, so all entries of a bake-off tell it
together. An entry that its seeds move much further than the others stands alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

import torch
from jaxtyping import Float
from scipy.special import stdtr, stdtrit
from torch import Tensor

from reelign.bakeoff.results import Measure, Sheet
from reelign.core import rng, stats
from reelign.core.stats import Crossed, Draws, Interval

LEVEL = 0.95
UNLIKE = 9.0
"""A variance so many times the median is not one of the same kind; among equals of three seeds one in a hundred is."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its standard error, the degrees of freedom of that, and draws spread alike."""

    estimate: float
    std: float
    freedom: float
    draws: Float[Tensor, " d"]

    def interval(self) -> Interval:
        """Confidence limits at `LEVEL`, with Student's quantile."""
        half = float(stdtrit(self.freedom, (1 + LEVEL) / 2)) * self.std
        return Interval(self.estimate, self.estimate - half, self.estimate + half)

    def widened(self, level: float) -> Float[Tensor, " d"]:
        """Draws as wide as an interval at that level, for statistics of several means."""
        if self.std == 0:
            return self.draws
        quantile = (1 + level) / 2
        stretch = float(stdtrit(self.freedom, quantile)) / NormalDist().inv_cdf(quantile)
        return self.estimate + stretch * (self.draws - self.estimate)

    def p_value(self) -> float:
        """Two-sided, of being 0."""
        if self.std == 0:
            return 1.0 if self.estimate == 0 else 0.0
        return 2 * float(stdtr(self.freedom, -abs(self.estimate) / self.std))


def pooled(found: Sequence[Crossed], together: int, alone: int) -> list[Mean]:
    """Means of like kind: each gets the mean of their variances from seeds, or its own where that is larger.

    Satterthwaite's degrees of freedom would be finer and are not safe here: where three seeds happen to agree, they
    take the prompts' variance for the whole, and among six equal entries find a winner in one bake-off of four.

    Args:
        found: means of the same quantity of several entries, or differences of several pairs.
        together: degrees of freedom of all their seeds together.
        alone: of the seeds of one.
    """
    if not found:
        return []
    most = UNLIKE * median(each.of_seeds for each in found)
    alike = [each.of_seeds for each in found if each.of_seeds <= most]
    usual, freedom = sum(alike) / len(alike), max(alone, together * len(alike) / len(found))
    means = []
    for each in found:
        like = each.of_seeds <= most
        of_seeds = max(each.of_seeds, usual) if like else each.of_seeds
        stretch = math.sqrt(of_seeds / each.of_seeds) if each.of_seeds else 0.0
        draws = each.estimate + stretch * each.seed_draws + each.prompt_draws
        std = math.sqrt(of_seeds + each.of_prompts)
        means.append(Mean(each.estimate, std, float(freedom if like else alone), draws))
    return means


def of_levels(sheet: Sheet) -> tuple[int, int]:
    """Degrees of freedom of what seeds do to an entry: told by all entries, and by one alone.

    Of a single seed nothing is known; prompts are all there is then.
    """
    alone = len(sheet.seeds) - 1
    return (len(sheet.series) * alone, alone) if alone else (sheet.prompts - 1, sheet.prompts - 1)


def of_gaps(sheet: Sheet) -> tuple[int, int]:
    """The same of what they do to the difference of two entries: what a seed does to all entries cancels."""
    together, alone = of_levels(sheet)
    return (max(alone, together - alone), alone)


def resampled(sheet: Sheet, seed: int, draws: int) -> dict[str, Draws]:
    """Draws for each entry: the prompts are the same for all, training seeds move each on its own.

    The luck of two entries with the same seed has little in common; what three seeds show of it is chance, and to take
    it for real would find differences where none are.
    """
    shared = stats.crossed_draws(len(sheet.seeds), sheet.prompts, seed=seed, draws=draws).prompts
    found = {}
    for label in sheet.series:
        own = stats.crossed_draws(len(sheet.seeds), 1, seed=rng.seed_for(seed, label), draws=draws)
        found[label] = Draws(own.seeds, shared)
    return found


def levels(sheet: Sheet, values: Sequence[Float[Tensor, "s n"]], draws: Mapping[str, Draws]) -> list[Mean]:
    """Means over seeds and clips, one for each entry in order."""
    pairs = zip(values, draws.values(), strict=True)
    return pooled([_crossed(sheet, each, own) for each, own in pairs], *of_levels(sheet))


def gaps(sheet: Sheet, values: Sequence[Float[Tensor, "s n"]], draws: Draws) -> list[Mean]:
    """Means of differences, one for each pair of entries."""
    return pooled([_crossed(sheet, each, draws) for each in values], *of_gaps(sheet))


def curves(sheet: Sheet, measure: Measure, draws: Mapping[str, Draws]) -> dict[str, list[Mean]]:
    """Each entry's mean at each check."""
    values = [series.values[measure.name] for series in sheet.series.values()]
    by_check = [levels(sheet, column, draws) for column in zip(*values, strict=True)]
    return {label: [means[index] for means in by_check] for index, label in enumerate(sheet.series)}


def spent(sheet: Sheet, x: Float[Tensor, "c s"], draws: Draws) -> list[Mean]:
    """Means of units or seconds at each check; every entry has a pace of its own."""
    of_seeds, alone = Draws(draws.seeds, draws.prompts[:, :1]), max(1, len(sheet.seeds) - 1)
    found = [stats.crossed_mean(column[:, None], torch.ones_like(column)[:, None], of_seeds) for column in x]
    return [pooled([each], alone, alone)[0] for each in found]


def _crossed(sheet: Sheet, values: Float[Tensor, "s n"], draws: Draws) -> Crossed:
    """Mean over seeds and clips; clips of one prompt count together."""
    known = ~torch.isnan(values)
    cells = values.new_zeros(len(values), sheet.prompts)
    sums = cells.index_add(1, sheet.prompt, values.nan_to_num())
    return stats.crossed_mean(sums, cells.index_add(1, sheet.prompt, known.double()), draws)
