"""What a bake-off shows: levels, gains, differences, ranks and times, each with what its noise allows to say.

Intervals cover 95 % over training seeds and prompts at once. A difference is called one only if its p-value stays below
0.05 after Holm's correction for all comparisons on its measure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from reelign.bakeoff import means, race
from reelign.bakeoff.means import LEVEL, Mean
from reelign.bakeoff.race import Reach
from reelign.bakeoff.results import Measure, Series, Sheet
from reelign.bakeoff.spec import FEWEST_SEEDS, Spec
from reelign.core import stats
from reelign.core.stats import Draws, Interval
from reelign.report.tables import FEWEST_PROMPTS

Verdict = Literal["better", "worse", "no difference", "undecided"]
"""`undecided` where there are too few seeds or prompts to say anything."""
SEED = 0
"""Of the resampling; a bake-off says the same each time it is looked at."""
DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Change:
    """A paired difference in the measure's own unit; `p` is corrected, the interval is not."""

    difference: Interval
    p: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Standing:
    """How an entry ends on one measure.

    `rank` is 1 plus the number of entries that are better beyond noise, so entries may share one. Entries that share a
    letter of `groups` show no difference among each other; `same_as` names all that this one does not differ from.
    """

    label: str
    final: Interval
    gain: Change
    """Over the start, clip by clip."""
    rank: int
    groups: str
    same_as: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """The final difference of two entries, first minus second, and how the first does."""

    first: str
    second: str
    change: Change


@dataclass(frozen=True, slots=True)
class Point:
    """A check of an entry's curve."""

    units: float
    level: Interval


@dataclass(frozen=True, slots=True)
class Board:
    """One measure: curves, standings from best to worst, and all pairs."""

    measure: Measure
    curves: dict[str, tuple[Point, ...]]
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run of an entry took, in the mean over seeds; the parts of `seconds` leave out what is none of them.

    `fastest_s` and `slowest_s` are those of its runs per forward-unit.
    """

    label: str
    iterations: float
    units: float
    seconds: float
    rollout_s: float
    decode_s: float
    reward_s: float
    update_s: float
    fastest_s: float
    slowest_s: float

    @property
    def other_s(self) -> float:
        """Credit, bookkeeping, drawing prompts."""
        return max(0.0, self.seconds - self.rollout_s - self.decode_s - self.reward_s - self.update_s)


@dataclass(frozen=True, slots=True)
class Stop:
    """A run that ended before its budget."""

    label: str
    seed: int
    step: int
    why: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """All that a bake-off shows; `boards` begins with the target's."""

    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    prompts: int
    members: int
    decided: bool
    """Whether there are enough seeds and prompts to call anything a difference."""
    boards: tuple[Board, ...]
    target: Interval
    baseline: str
    reaches: tuple[Reach, ...]
    costs: tuple[Cost, ...]
    stops: tuple[Stop, ...]
    missing: tuple[str, ...]
    spare: int


def analyse(spec: Spec, sheet: Sheet) -> Analysis:
    """Compare all entries of a sheet."""
    draws = means.resampled(sheet, SEED, DRAWS)
    decided = len(sheet.seeds) >= FEWEST_SEEDS and sheet.prompts >= FEWEST_PROMPTS
    boards = tuple(_board(sheet, sheet.measures[name], draws, decided) for name in spec.ranked)
    labels = tuple(sheet.series)
    baseline = next(label for label in (spec.baseline, *labels) if label in labels)
    target, reaches = race.run(sheet, spec.target, draws, baseline, decided)
    return Analysis(
        labels=labels,
        seeds=sheet.seeds,
        prompts=sheet.prompts,
        members=sheet.members,
        decided=decided,
        boards=boards,
        target=target,
        baseline=baseline,
        reaches=reaches,
        costs=tuple(_cost(series) for series in sheet.series.values()),
        stops=tuple(
            Stop(series.label, seed, checks[-1].step, checks[-1].stopped)
            for series in sheet.series.values()
            for seed, checks in zip(sheet.seeds, series.runs, strict=True)
            if checks[-1].stopped
        ),
        missing=sheet.missing,
        spare=sheet.spare,
    )


def _board(sheet: Sheet, measure: Measure, draws: Mapping[str, Draws], decided: bool) -> Board:
    values = {label: series.values[measure.name] for label, series in sheet.series.items()}
    curves = {
        label: tuple(
            Point(sheet.series[label].units[check].mean().item(), _limited(mean.interval(), measure))
            for check, mean in enumerate(found)
        )
        for label, found in means.curves(sheet, measure, draws).items()
    }
    up = measure.higher_is_better
    gains = _changes(means.levels(sheet, [v[-1] - v[0] for v in values.values()], draws), up, decided)
    couples = list(combinations(values, 2))
    some = next(iter(draws.values()))
    changes = _changes(means.gaps(sheet, [values[a][-1] - values[b][-1] for a, b in couples], some), up, decided)
    pairs = tuple(Pair(a, b, change) for (a, b), change in zip(couples, changes, strict=True))
    finals = {label: points[-1].level for label, points in curves.items()}
    ordered = sorted(finals, key=lambda label: (-1 if up else 1) * finals[label].estimate)
    return Board(measure, curves, _standings(ordered, finals, dict(zip(values, gains, strict=True)), pairs), pairs)


def _limited(interval: Interval, measure: Measure) -> Interval:
    """An interval of a level; that of a share stays within 0 and 1."""
    estimate, low, high = interval
    return Interval(estimate, max(low, 0.0), min(high, 1.0)) if measure.rate else interval


def _changes(found: Sequence[Mean], higher_is_better: bool, decided: bool) -> list[Change]:
    """Differences of one table, with p-values corrected for their number."""
    corrected = stats.holm([each.p_value() for each in found])
    changes = []
    for each, p in zip(found, corrected, strict=True):
        verdict: Verdict = "no difference" if decided else "undecided"
        if decided and p < 1 - LEVEL:
            verdict = "better" if (each.estimate > 0) == higher_is_better else "worse"
        changes.append(Change(each.interval(), p, verdict))
    return changes


def _standings(
    ordered: Sequence[str], finals: Mapping[str, Interval], gains: Mapping[str, Change], pairs: Sequence[Pair]
) -> tuple[Standing, ...]:
    beats = {(p.first, p.second) for p in pairs if p.change.verdict == "better"}
    beats |= {(p.second, p.first) for p in pairs if p.change.verdict == "worse"}
    same = {a: tuple(b for b in ordered if b != a and (a, b) not in beats and (b, a) not in beats) for a in ordered}
    letters = groups(ordered, same)
    ranks = {label: 1 + sum((other, label) in beats for other in ordered) for label in ordered}
    return tuple(
        Standing(label, finals[label], gains[label], ranks[label], letters[label], same[label]) for label in ordered
    )


def groups(ordered: Sequence[str], same: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Letters such that two labels share one exactly if they do not differ (the largest groups without differences).

    Example:
        >>> groups("abc", {"a": "b", "b": "ac", "c": "b"})
        {'a': 'A', 'b': 'AB', 'c': 'B'}
    """
    largest = list(_largest(set(), list(ordered), set(), same))
    largest.sort(key=lambda group: sorted(ordered.index(label) for label in group))
    names = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return {
        label: "".join(names[k % len(names)] for k, group in enumerate(largest) if label in group) for label in ordered
    }


def _largest(
    chosen: set[str], able: list[str], done: set[str], same: Mapping[str, Sequence[str]]
) -> Iterator[set[str]]:
    """Groups without differences that no other entry could join (Bron and Kerbosch 1973)."""
    if not able and not done:
        yield chosen
    able, done = list(able), set(done)
    while able:
        label = able.pop(0)
        yield from _largest({*chosen, label}, [b for b in able if b in same[label]], done & {*same[label]}, same)
        done.add(label)


def _cost(series: Series) -> Cost:
    last = [checks[-1] for checks in series.runs]
    spent = ("step", "units", "seconds", "rollout_s", "decode_s", "reward_s", "update_s")
    means = (sum(float(getattr(check, name)) for check in last) / len(last) for name in spent)
    paces = [check.seconds / check.units for check in last if check.units] or [0.0]
    return Cost(series.label, *means, fastest_s=min(paces), slowest_s=max(paces))
