"""Every number the report shows: measures by stage, paired differences, slices, diversity.

A difference counts only if its 95 % interval leaves out 0. Whole prompts are resampled, since clips of one prompt are
alike, and both sides of a difference saw the same prompt and noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from reelign.core import rng, stats
from reelign.report.load import BASE, Clip, Run

Verdict = Literal["better", "worse", "no difference"]
FEWEST_PROMPTS = 6
"""Below this many prompts nothing is called a difference: five fair coins agree more often than one time in 20."""
REPORT_SEED = 0
"""Of the resampling; a report says the same each time it is written."""


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


@dataclass(frozen=True, slots=True)
class SliceCell:
    """One measure on one slice of one evaluation. `goodness` in [0, 1] is for shading: 1 is the best of the measure."""

    mean: float
    n: int
    goodness: float
    to_base: Difference | None


@dataclass(frozen=True, slots=True)
class SliceRow:
    """All measures on the clips of one slice, e.g. slice "motion", value "fall"."""

    slice: str
    value: str
    n: int
    cells: tuple[SliceCell | None, ...]


@dataclass(frozen=True, slots=True)
class SliceTable:
    """Slices by measure, for one evaluation."""

    label: str
    measures: tuple[str, ...]
    rows: tuple[SliceRow, ...]


def judge(interval: stats.Interval, higher_is_better: bool, prompts: int) -> Verdict:
    """What an interval of a difference allows us to say.

    Example:
        >>> judge(stats.Interval(0.2, 0.1, 0.3), higher_is_better=False, prompts=40)
        'worse'
        >>> judge(stats.Interval(0.2, -0.1, 0.5), higher_is_better=True, prompts=40)
        'no difference'
    """
    if prompts < FEWEST_PROMPTS or interval.low <= 0 <= interval.high:
        return "no difference"
    return "better" if (interval.low > 0) == higher_is_better else "worse"


def paired(
    ours: Mapping[tuple[int, int], Clip],
    theirs: Mapping[tuple[int, int], Clip],
    measure: str,
    *,
    higher_is_better: bool,
    seed: int,
) -> Difference | None:
    """Compare clips that share (prompt_id, member); None if the measure applies to no such pair.

    Args:
        ours: the later clips.
        theirs: the clips to compare with.
        measure: its name.
        higher_is_better: which sign is good.
        seed: of the resampling.
    """
    both = [
        (key[0], mine, other)
        for key, clip in ours.items()
        if key in theirs
        and (mine := clip.measures.get(measure)) is not None
        and (other := theirs[key].measures.get(measure)) is not None
    ]
    if not both:
        return None
    prompt_ids, values, others = zip(*both, strict=True)
    after, before = torch.tensor(values, dtype=torch.float64), torch.tensor(others, dtype=torch.float64)
    interval = stats.paired_difference(after, before, seed=seed, groups=torch.tensor(prompt_ids))
    prompts = len(set(prompt_ids))
    verdict = judge(interval, higher_is_better, prompts)
    return Difference(before.mean().item(), after.mean().item(), *interval, len(both), prompts, verdict)


def measure_table(run: Run) -> MeasureTable:
    """Each measure of each evaluation, with its paired differences to the base and to the weights before it."""
    rates = run.rates()
    labels = tuple(run.evaluations)
    clips = {label: evaluation.by_key for label, evaluation in run.evaluations.items()}
    rows = []
    for name, described in run.measures.items():
        cells: list[Cell | None] = []
        for label, evaluation in run.evaluations.items():
            summary = evaluation.measures.get(name)
            if summary is None or summary.mean is None:
                cells.append(None)
                continue
            to_previous = to_base = None
            if previous := _measured_before(run, label, name):
                to_previous = to_base = _difference(clips, label, previous, name, described.higher_is_better)
                if run.base is not None and previous != BASE:
                    to_base = _difference(clips, label, BASE, name, described.higher_is_better)
            low, high = (summary.mean if limit is None else limit for limit in (summary.low, summary.high))
            cells.append(Cell(label, summary.mean, low, high, summary.n, to_base, to_previous))
        if any(cells):
            about = described.description, described.higher_is_better, described.trained_on
            rows.append(Row(name, *about, name in rates, tuple(cells)))
    return MeasureTable(labels, run.final.label if run.final else "", tuple(rows))


def slice_table(run: Run, label: str) -> SliceTable:
    """Each measure on each slice of one evaluation, and its paired difference to the base on that slice.

    A kind of slice with a single value is left out: it says nothing that the whole does not.
    """
    measures = tuple(run.measures)
    groups = _slices(run.evaluations[label].clips)
    base = _slices(run.base.clips) if run.base is not None and label != BASE else {}
    rates = run.rates()
    spread = {name: (0.0, 1.0) if name in rates else _spread(run, name) for name in measures}
    rows = []
    for (kind, value), clips in groups.items():
        cells = []
        for name in measures:
            values = [v for clip in clips if (v := clip.measures.get(name)) is not None]
            if not values:
                cells.append(None)
                continue
            mean = sum(values) / len(values)
            better_up = run.measures[name].higher_is_better
            lowest, highest = spread[name]
            height = (mean - lowest) / (highest - lowest) if highest > lowest else 0.5
            difference = paired(
                {clip.key: clip for clip in clips},
                {clip.key: clip for clip in base.get((kind, value), ())},
                name,
                higher_is_better=better_up,
                seed=rng.seed_for(REPORT_SEED, "slice", kind, value, name),
            )
            cells.append(SliceCell(mean, len(values), height if better_up else 1 - height, difference))
        rows.append(SliceRow(kind, value, len(clips), tuple(cells)))
    return SliceTable(label, measures, tuple(rows))


def _measured_before(run: Run, label: str, measure: str) -> str | None:
    """The latest evaluation on the way to a stage's weights that took a measure."""
    before = run.before(label)
    while before is not None:
        summary = before.measures.get(measure)
        if summary is not None and summary.mean is not None:
            return before.label
        before = run.before(before.label)
    return None


def kept(row: Row) -> dict[str, float]:
    """How much of the base's level the other evaluations keep: ratio of means by label; empty without a base level."""
    base = row.at(BASE)
    if base is None or base.mean == 0:
        return {}
    return {cell.label: cell.mean / base.mean for cell in row.cells if cell and cell is not base}


def _difference(
    clips: Mapping[str, Mapping[tuple[int, int], Clip]], ours: str, theirs: str, measure: str, higher_is_better: bool
) -> Difference | None:
    seed = rng.seed_for(REPORT_SEED, "difference", measure, ours, theirs)
    return paired(clips[ours], clips[theirs], measure, higher_is_better=higher_is_better, seed=seed)


def _slices(clips: tuple[Clip, ...]) -> dict[tuple[str, str], tuple[Clip, ...]]:
    """Clips by (kind, value), kinds as they first appear and values sorted; kinds with one value are left out."""
    kinds: dict[str, dict[str, list[Clip]]] = {}
    for clip in clips:
        for kind, value in clip.slices.items():
            kinds.setdefault(kind, {}).setdefault(value, []).append(clip)
    return {
        (kind, value): tuple(members)
        for kind, values in kinds.items()
        if len(values) > 1
        for value, members in sorted(values.items())
    }


def _spread(run: Run, measure: str) -> tuple[float, float]:
    """Range of a measure's slice means over all evaluations."""
    means = []
    for evaluation in run.evaluations.values():
        for clips in _slices(evaluation.clips).values():
            values = [v for clip in clips if (v := clip.measures.get(measure)) is not None]
            if values:
                means.append(sum(values) / len(values))
    return (min(means), max(means)) if means else (0.0, 1.0)
