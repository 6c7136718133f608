"""How soon each entry reaches a level, in forward-units and in seconds, and relative to a baseline.

The time is where the mean curve first crosses the level, on straight lines between checks. Not to get there within the
budget is an answer like any other: an infinite time, of which only the lower limit is known.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.bakeoff import means
from reelign.bakeoff.means import LEVEL, Mean
from reelign.bakeoff.results import Sheet
from reelign.bakeoff.spec import Target
from reelign.core import stats
from reelign.core.stats import Draws, Interval

Speed = Literal["faster", "slower", "no difference", "undecided"]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Time relative to the baseline's; below 1 is faster. Without `value` one of the two did not reach the target."""

    value: float | None
    low: float
    high: float
    verdict: Speed


@dataclass(frozen=True, slots=True)
class Reach:
    """When an entry's mean curve first reaches the target; infinite limits say: not within the budget.

    `share` is the share of resamples in which it does. The baseline has no ratios.
    """

    label: str
    units: Interval
    seconds: Interval
    share: float
    units_ratio: Ratio | None
    seconds_ratio: Ratio | None


def run(
    sheet: Sheet, target: Target, draws: Mapping[str, Draws], baseline: str, decided: bool
) -> tuple[Interval, tuple[Reach, ...]]:
    """The target's level, and when each entry reaches it; no times if the entry to match has not been run."""
    measure = sheet.measures[target.measure]
    curves = means.curves(sheet, measure, draws)
    if target.value is not None:
        aim = Mean(target.value, 0.0, math.inf, torch.full_like(next(iter(draws.values())).seeds[:, 0], target.value))
    elif target.match in curves:
        aim = curves[target.match][-1]
    else:
        return Interval(math.nan, math.nan, math.nan), ()
    sign = 1.0 if measure.higher_is_better else -1.0
    # Verdicts are corrected for the number of entries that are compared with the baseline (Bonferroni).
    strict = 1 - (1 - LEVEL) / max(1, len(sheet.series) - 1)
    clocks: dict[str, list[_Clock]] = {}
    for label, series in sheet.series.items():
        clocks[label] = [
            _Clock(means.spent(sheet, x, draws[label]), curves[label], aim, sign)
            for x in (series.units, series.seconds)
        ]
    reaches = []
    for label in sheet.series:
        pairs = zip(clocks[label], clocks[baseline], strict=True)
        ratios = [None if label == baseline else _ratio(*pair, strict, decided) for pair in pairs]
        units, seconds = clocks[label]
        share = torch.isfinite(units.drawn(LEVEL)[0]).double().mean().item()
        reaches.append(Reach(label, units.interval(), seconds.interval(), share, *ratios))
    return aim.interval(), tuple(reaches)


Drawn = tuple[Float[Tensor, " d"], Float[Tensor, " d"]]
"""When a target is reached in each draw, and where that draw's budget ends."""


@dataclass(frozen=True, slots=True)
class _Clock:
    """One entry on its way to a level; `x` and `y` have a mean for each check, and `sign` makes up better."""

    x: Sequence[Mean]
    y: Sequence[Mean]
    aim: Mean
    sign: float

    @property
    def estimate(self) -> float:
        """Where the mean curve reaches the level."""
        x, y = (torch.tensor([[mean.estimate for mean in axis]], dtype=torch.float64) for axis in (self.x, self.y))
        aim = torch.tensor([self.aim.estimate], dtype=torch.float64)
        return stats.first_crossing(x, self.sign * y, self.sign * aim).item()

    def drawn(self, level: float) -> Drawn:
        """Where the curve of each draw reaches that draw's level."""
        x = torch.stack([mean.widened(level) for mean in self.x], dim=1).clamp_min(0).cummax(dim=1).values
        y = torch.stack([mean.widened(level) for mean in self.y], dim=1)
        aim = self.aim.widened(level)
        return stats.first_crossing(x, self.sign * y, self.sign * aim), x[:, -1]

    def interval(self) -> Interval:
        times, _ = self.drawn(LEVEL)
        return Interval(self.estimate, *_limits(times, times, LEVEL))


def _ratio(ours: _Clock, theirs: _Clock, strict: float, decided: bool) -> Ratio:
    """One entry's time over another's, with a verdict at the level `strict`."""
    least, most = _ratios(ours.drawn(strict), theirs.drawn(strict), strict)
    verdict: Speed = "no difference" if decided else "undecided"
    if decided and (most < 1 or least > 1):
        verdict = "faster" if most < 1 else "slower"
    both = math.isfinite(ours.estimate) and math.isfinite(theirs.estimate) and theirs.estimate > 0
    limits = _ratios(ours.drawn(LEVEL), theirs.drawn(LEVEL), LEVEL)
    return Ratio(ours.estimate / theirs.estimate if both else None, *limits, verdict)


def _ratios(ours: Drawn, theirs: Drawn, level: float) -> tuple[float, float]:
    """Limits of a ratio of times; all that is known of a time that was not reached is that it exceeds its budget."""
    beyond = torch.tensor(math.inf, dtype=torch.float64)
    mine, other = (torch.where(torch.isfinite(times), times, end.nextafter(beyond)) for times, end in (ours, theirs))
    least, most = mine / theirs[0], ours[0] / other
    # Neither reached, or both at the start: nothing is known.
    least = least.nan_to_num(nan=0.0, posinf=math.inf)
    return _limits(least, most.nan_to_num(nan=math.inf, posinf=math.inf), level)


def _limits(lowest: Float[Tensor, " d"], highest: Float[Tensor, " d"], level: float) -> tuple[float, float]:
    """Order statistics, which infinite values do not spoil: low of the one, high of the other."""
    tail = math.floor((1 - level) / 2 * len(lowest))
    return lowest.sort().values[tail].item(), highest.sort().values[len(highest) - 1 - tail].item()
