"""Measures by slice: where it works and where it does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from reelign.records import Clip, Evaluation
from reelign.report.run import BASE, Run
from reelign.report.tables import Difference, paired

Clips = Mapping[tuple[int, int], Clip]
"""By prompt and member."""
Groups = dict[tuple[str, str], Clips]
"""Clips by kind of slice and its value."""
Range = tuple[float, float]
MOST_VALUES = 24
"""Values of a kind of slice; one with more, such as an id, is left out: it would hold a few clips a value."""


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
    """Slices by measure, for one evaluation. `crowded` names the kinds with too many values to show."""

    label: str
    measures: tuple[str, ...]
    rows: tuple[SliceRow, ...]
    crowded: tuple[str, ...] = ()

    @property
    def kinds(self) -> list[tuple[str, list[SliceRow]]]:
        """Its rows by kind of slice."""
        return [(kind, list(rows)) for kind, rows in groupby(self.rows, key=lambda row: row.slice)]


def slice_tables(run: Run) -> dict[str, SliceTable]:
    """Each measure on each slice of each evaluation, and its paired difference to the base on that slice; by label.

    A kind of slice with a single value is left out: it says nothing that the whole does not.
    """
    grouped = {label: _slices(evaluation) for label, evaluation in run.evaluations.items()}
    scale = {name: (0.0, 1.0) if name in run.rates else _range(grouped, name) for name in run.measures}
    return {label: _slice_table(run, label, grouped, scale) for label in run.evaluations}


def _slice_table(run: Run, label: str, grouped: Mapping[str, Groups], scale: Mapping[str, Range]) -> SliceTable:
    measures = tuple(name for name in run.measures if name in run.evaluations[label].measures)
    base = grouped.get(BASE, {}) if label not in (BASE, *run.aside) else {}
    rows = tuple(
        SliceRow(*key, len(clips), tuple(_cell(run, name, clips, base.get(key, {}), scale[name]) for name in measures))
        for key, clips in grouped[label].items()
    )
    return SliceTable(label, measures, rows, _crowded(run.evaluations[label]))


def _cell(run: Run, measure: str, clips: Clips, base: Clips, limits: Range) -> SliceCell | None:
    values = _values(clips, measure)
    if not values:
        return None
    mean = sum(values) / len(values)
    better_up, (lowest, highest) = run.measures[measure].higher_is_better, limits
    height = (mean - lowest) / (highest - lowest) if highest > lowest else 0.5
    difference = paired(clips, base, measure, higher_is_better=better_up, rate=measure in run.rates)
    return SliceCell(mean, len(values), height if better_up else 1 - height, difference)


def _kinds(evaluation: Evaluation) -> dict[str, dict[str, dict[tuple[int, int], Clip]]]:
    """Clips by kind of slice and value, kinds as they first appear."""
    kinds: dict[str, dict[str, dict[tuple[int, int], Clip]]] = {}
    for clip in evaluation.clips:
        for kind, value in clip.slices.items():
            kinds.setdefault(kind, {}).setdefault(value, {})[clip.key] = clip
    return kinds


def _slices(evaluation: Evaluation) -> Groups:
    """Clips by (kind, value), values sorted; kinds with a single value, or with too many, are left out."""
    return {
        (kind, value): clips
        for kind, values in _kinds(evaluation).items()
        if 1 < len(values) <= MOST_VALUES
        for value, clips in sorted(values.items())
    }


def _crowded(evaluation: Evaluation) -> tuple[str, ...]:
    return tuple(kind for kind, values in _kinds(evaluation).items() if len(values) > MOST_VALUES)


def _range(grouped: Mapping[str, Groups], measure: str) -> Range:
    """Range of a measure's slice means over all evaluations."""
    found = [_values(clips, measure) for groups in grouped.values() for clips in groups.values()]
    means = [sum(values) / len(values) for values in found if values]
    return (min(means), max(means)) if means else (0.0, 1.0)


def _values(clips: Clips, measure: str) -> list[float]:
    return [value for clip in clips.values() if (value := clip.measures.get(measure)) is not None]
