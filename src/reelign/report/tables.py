"""The numbers the report shows: measures by stage, paired differences, diversity.

A difference counts only if its 95 % interval leaves out 0 and it is large enough to show. Whole prompts are resampled,
since clips of one prompt are alike, and both sides of a difference saw the same prompt and noise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from reelign.core import stats
from reelign.records import Clip
from reelign.report import words
from reelign.report.run import BASE, Run

Verdict = Literal["better", "worse", "no difference", "no difference that shows", "too few prompts to tell"]
TOO_FEW: Verdict = "too few prompts to tell"
FEWEST_PROMPTS = 6
"""Below this many prompts nothing is said of a difference: five fair coins agree more often than one time in 20."""
LEAST_EFFECT = 0.02
"""In standard deviations over clips, the smallest difference that matters: a tenth of what Cohen (1988) calls small.
Where both sides start from the same noise, far smaller ones lie beyond it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of ours minus theirs over paired clips, in the measure's own unit, with its 95 % interval.

    `before` and `after` are the means of theirs and ours over the same pairs.
    """

    before: float
    after: float
    difference: float
    low: float
    high: float
    n: int
    prompts: int
    verdict: Verdict

    @property
    def moved(self) -> bool:
        """Whether there is anything to tell."""
        return self.verdict in ("better", "worse")


@dataclass(frozen=True, slots=True)
class Cell:
    """One measure of one evaluation: the summary that the evaluation wrote, and how it differs from earlier ones.

    `to_previous` compares with the weights that entered the stage, which skips stages whose gate failed.
    """

    label: str
    mean: float
    low: float
    high: float
    n: int
    to_base: Difference | None = None
    to_previous: Difference | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One measure; `cells` has an entry per evaluation, None where the measure was not taken or does not apply."""

    measure: str
    description: str
    higher_is_better: bool
    trained_on: bool
    rate: bool
    cells: tuple[Cell | None, ...]

    def at(self, label: str) -> Cell | None:
        """The cell of one evaluation."""
        return next((cell for cell in self.cells if cell and cell.label == label), None)


@dataclass(frozen=True, slots=True)
class MeasureTable:
    """Measures by evaluation. `final` is the label of the weights the run ends with; "" without any evaluation."""

    labels: tuple[str, ...]
    final: str
    rows: tuple[Row, ...]


class Levels(NamedTuple):
    """Where a measure stands before and after, and how much clips differ among themselves."""

    before: float
    after: float
    spread: float
    """Standard deviation over clips."""
    rate: bool
    """Whether it is a share."""


def judge(interval: stats.Interval, levels: Levels, *, higher_is_better: bool, prompts: int) -> Verdict:
    """What an interval of a difference, and its size, allow us to say.

    Example:
        >>> shares = Levels(0.4, 0.6, spread=0.5, rate=True)
        >>> judge(stats.Interval(0.2, 0.1, 0.3), shares, higher_is_better=False, prompts=40)
        'worse'
        >>> judge(stats.Interval(0.2, -0.1, 0.5), shares, higher_is_better=True, prompts=40)
        'no difference'
        >>> scores = Levels(0.0404, 0.0404002, spread=0.01, rate=False)
        >>> judge(stats.Interval(2e-7, 1e-7, 3e-7), scores, higher_is_better=True, prompts=40)
        'no difference that shows'
    """
    if prompts < FEWEST_PROMPTS:
        return TOO_FEW
    if not (interval.low > 0 or interval.high < 0):
        return "no difference"
    small = abs(interval.estimate) < LEAST_EFFECT * levels.spread
    if small or not words.differ(levels.before, levels.after, levels.rate):
        return "no difference that shows"
    return "better" if (interval.low > 0) == higher_is_better else "worse"


def spread(*sides: Tensor) -> float:
    """Standard deviation over clips, each side around its own mean; 0 for single clips."""
    freedom = sum(len(side) - 1 for side in sides)
    squares = sum(float((side - side.mean()).square().sum()) for side in sides)
    return math.sqrt(squares / freedom) if freedom > 0 else 0.0


def paired(
    ours: Mapping[tuple[int, int], Clip],
    theirs: Mapping[tuple[int, int], Clip],
    measure: str,
    *,
    higher_is_better: bool,
    rate: bool,
) -> Difference | None:
    """Compare clips that share prompt_id, member and prompt; None if the measure applies to no such pair.

    Args:
        ours: the later clips.
        theirs: the clips to compare with.
        measure: its name.
        higher_is_better: which sign is good.
        rate: whether the measure is a share.
    """
    both = [
        (key[0], mine, other)
        for key, clip in ours.items()
        if key in theirs
        and clip.prompt == theirs[key].prompt
        and (mine := clip.measures.get(measure)) is not None
        and (other := theirs[key].measures.get(measure)) is not None
    ]
    if not both:
        return None
    prompt_ids, values, others = zip(*both, strict=True)
    after, before = torch.tensor(values, dtype=torch.float64), torch.tensor(others, dtype=torch.float64)
    interval = stats.over_prompts([new - old for new, old in zip(values, others, strict=True)], prompt_ids)
    levels = Levels(before.mean().item(), after.mean().item(), spread(after, before), rate)
    prompts = len(set(prompt_ids))
    verdict = judge(interval, levels, higher_is_better=higher_is_better, prompts=prompts)
    return Difference(levels.before, levels.after, *interval, len(both), prompts, verdict)


def measure_table(run: Run) -> MeasureTable:
    """Each measure of each evaluation, with its paired differences to the base and to the weights before it.

    An evaluation that is a stage of its own has settings of its own, so it is shown but not compared.
    """
    rows = (
        Row(
            name,
            about.description,
            about.higher_is_better,
            about.trained_on,
            rate=name in run.rates,
            cells=tuple(_cell(run, label, name) for label in run.evaluations),
        )
        for name, about in run.measures.items()
    )
    final = run.final.label if run.final else ""
    return MeasureTable(tuple(run.evaluations), final, tuple(row for row in rows if any(row.cells)))


def _cell(run: Run, label: str, measure: str) -> Cell | None:
    summary = run.evaluations[label].measures.get(measure)
    if summary is None or summary.mean is None:
        return None
    to_previous = to_base = None
    if label not in run.aside and (previous := _measured_before(run, label, measure)):
        to_previous = to_base = _difference(run, measure, label, previous)
        if run.base is not None and previous != BASE:
            to_base = _difference(run, measure, label, BASE)
    low, high = (summary.mean if limit is None else limit for limit in (summary.low, summary.high))
    return Cell(label, summary.mean, low, high, summary.n, to_base, to_previous)


def _difference(run: Run, measure: str, ours: str, theirs: str) -> Difference | None:
    return paired(
        run.evaluations[ours].by_key,
        run.evaluations[theirs].by_key,
        measure,
        higher_is_better=run.measures[measure].higher_is_better,
        rate=measure in run.rates,
    )


def _measured_before(run: Run, label: str, measure: str) -> str | None:
    """The latest evaluation on the way to a stage's weights that took a measure."""
    before = run.before(label)
    while before is not None:
        summary = before.measures.get(measure)
        if summary is not None and summary.mean is not None:
            return before.label
        before = run.before(before.label)
    return None


def of_base(row: Row) -> dict[str, float]:
    """Each other evaluation's level as a multiple of the base's, by label; empty without a base level."""
    base = row.at(BASE)
    if base is None or base.mean == 0:
        return {}
    return {cell.label: cell.mean / base.mean for cell in row.cells if cell and cell is not base}
