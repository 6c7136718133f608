"""Two runs on their held-out measures: what B does better or worse than A, with intervals."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reelign.core import stats
from reelign.errors import UserError
from reelign.records import Evaluation
from reelign.report import stations, words
from reelign.report.load import load
from reelign.report.run import Run
from reelign.report.tables import Difference, Levels, Verdict, judge, paired, spread


@dataclass(frozen=True, slots=True)
class MeasureComparison:
    """One measure of two runs; `difference` is B minus A, and `verdict` says how B does."""

    measure: str
    description: str
    higher_is_better: bool
    rate: bool
    a: float
    b: float
    difference: float
    low: float
    high: float
    n: int
    verdict: Verdict
    sampler: str = ""
    """How clips were sampled, where the runs were judged under several samplers."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two final evaluations, measure by measure. `paired`: both sampled the same prompts, compared clip by clip.

    `unfinished_a` and `unfinished_b` say what an unfinished run has still to do; they are empty for finished ones.
    """

    run_a: str
    run_b: str
    label_a: str
    label_b: str
    unfinished_a: str
    unfinished_b: str
    paired: bool
    measures: tuple[MeasureComparison, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Plain text for a terminal: measures by run, and notes below them."""
        lines = [
            f"A: {_what(self.run_a, self.label_a, self.unfinished_a)}",
            f"B: {_what(self.run_b, self.label_b, self.unfinished_b)}",
        ]
        for title in dict.fromkeys(m.sampler for m in self.measures):
            lines += ["", *([f"{title}:"] if title else []), *_rows([m for m in self.measures if m.sampler == title])]
        if self.notes:
            lines += ["", *(f"Note: {note}" for note in self.notes)]
        return "\n".join(lines)


def compare(run_a: Path, run_b: Path) -> Comparison:
    """Compare the final evaluations of two runs on the measures that neither trained on.

    Clips are paired on (prompt_id, member) when both runs evaluated the same prompts; otherwise the two means are
    compared as independent ones, which needs larger differences.

    Raises:
        UserError: a folder is no run, has no evaluation, or the two share no held-out measure.
    """
    first, second = load(run_a), load(run_b)
    found, notes, views = [], [], _views(first, second)
    for one, other in views:
        measures, told = _under(one, other)
        found += measures
        notes += [f"{title}: {note}" if (title := one.title or other.title) else note for note in told]
    for side, compared in ((first, [one for one, _ in views]), (second, [other for _, other in views])):
        alone = [view.title for view in side.views if view.title and view not in compared]
        notes += [f"only {side.name} was judged with {title}." for title in alone]
    a, b = map(_final, views[0])
    if not found:
        raise UserError(
            f"{run_a} and {run_b} have no held-out measure in common, so there is nothing to compare; "
            "evaluate both with the same metrics."
        )
    return Comparison(
        run_a=first.name,
        run_b=second.name,
        label_a=a.label,
        label_b=b.label,
        unfinished_a=stations.unfinished(first),
        unfinished_b=stations.unfinished(second),
        paired=a.prompts == b.prompts,
        measures=tuple(found),
        notes=tuple(notes),
    )


def _rows(measures: Sequence[MeasureComparison]) -> list[str]:
    """Lines of a table."""
    head = ("measure", "A", "B", "B \N{MINUS SIGN} A", "95 % interval", "clips", "verdict on B")
    found = [
        (
            words.plain(m.measure) + ("" if m.higher_is_better else " (lower is better)"),
            words.number(m.a, m.rate),
            words.number(m.b, m.rate),
            words.signed(m.difference, m.rate, m.b),
            words.signed_limits(m.low, m.high, m.rate, m.b),
            str(m.n),
            m.verdict,
        )
        for m in measures
    ]
    rows: list[tuple[str, ...]] = [head, *found]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        first, *middle, last = (text.replace("\N{NO-BREAK SPACE}", " ") for text in row)
        cells = [text.rjust(width) for text, width in zip(middle, widths[1:-1], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells, last]))
    return lines


def _views(first: Run, second: Run) -> list[tuple[Run, Run]]:
    """What is compared: what both were judged with, whatever it is called; where that is nothing, the main samplers."""
    there = [(a, b, a.final, b.final) for a in first.views for b in second.views]
    alike = [(a, b) for a, b, old, new in there if old and new and _settings(old) == _settings(new)]
    return alike or [(first.views[0], second.views[0])]


def _under(first: Run, second: Run) -> tuple[list[MeasureComparison], list[str]]:
    """Measures under one sampler, and what is to be known of them."""
    a, b = _final(first), _final(second)
    found, left_out = [], dict[str, list[str]]()
    for name in dict.fromkeys((*a.measures, *b.measures)):
        reason = _not_comparable(name, a, b)
        rate = name in first.rates & second.rates
        compared = None if reason else _measure(name, a, b, rate, a.prompts == b.prompts)
        if compared:
            found.append(replace(compared, sampler=first.title or second.title))
        else:
            left_out.setdefault(reason or "no clip of both has", []).append(words.plain(name))
    return found, [*_unlike(a, b), *(f"left out, since {why} {words.join(names)}." for why, names in left_out.items())]


def _unlike(a: Evaluation, b: Evaluation) -> list[str]:
    """How the two were made that is not the same."""
    notes = []
    if a.prompts != b.prompts:
        notes.append("the runs were evaluated on different prompts, so their means are compared as independent ones.")
    elif not b.shares_noise(a):
        notes.append("the runs were sampled from different noise, so clips are paired by prompt only.")
    if _settings(a) != _settings(b):
        notes.append("the runs were sampled with different settings, so part of a difference may be the sampler's.")
    return notes


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    """Of its sampler, whatever that is called."""
    return {key: value for key, value in evaluation.sampler.items() if key != "name"}


def _what(run: str, label: str, missing: str) -> str:
    """Which weights of a run are compared."""
    return f"{run}, after {words.title(label)}" + (f"; unfinished: {missing}" if missing else "")


def _final(run: Run) -> Evaluation:
    if run.final is None:
        raise UserError(
            f"{run.folder} has no evaluation yet, so there is nothing to compare; let the run evaluate first."
        )
    return run.final


def _not_comparable(name: str, a: Evaluation, b: Evaluation) -> str:
    """Why a measure is left out, in words that go before its name; empty where it is not."""
    for side, evaluation in (("A", a), ("B", b)):
        if name not in evaluation.measures:
            return f"{side} did not measure"
    trained = [side for side, evaluation in (("A", a), ("B", b)) if evaluation.measures[name].trained_on]
    if trained:
        return f"{words.join(trained)} trained on"
    versions = {evaluation.measures[name].version for evaluation in (a, b)} - {""}
    if len(versions) > 1:
        return "the runs had different versions of what measures"
    if a.measures[name].higher_is_better != b.measures[name].higher_is_better:
        return "the runs disagree on which direction is better for"
    return ""


def _measure(name: str, a: Evaluation, b: Evaluation, rate: bool, same_prompts: bool) -> MeasureComparison | None:
    about = a.measures[name]
    up = about.higher_is_better
    if same_prompts:
        found = paired(b.by_key, a.by_key, name, higher_is_better=up, rate=rate)
    else:
        found = _unpaired(_mean(name, a), _mean(name, b), rate, up)
    if found is None:
        return None
    levels, interval = (found.before, found.after), (found.difference, found.low, found.high)
    return MeasureComparison(name, about.description, up, rate, *levels, *interval, found.n, found.verdict)


def _unpaired(a: "_Mean | None", b: "_Mean | None", rate: bool, higher_is_better: bool) -> Difference | None:
    if a is None or b is None:
        return None
    interval = independent_difference(b.interval, a.interval)
    levels = Levels(a.interval.estimate, b.interval.estimate, spread(a.values, b.values), rate)
    n, prompts = min(len(a.values), len(b.values)), min(a.prompts, b.prompts)
    verdict = judge(interval, levels, higher_is_better=higher_is_better, prompts=prompts)
    return Difference(levels.before, levels.after, *interval, n, prompts, verdict)


def independent_difference(ours: stats.Interval, theirs: stats.Interval) -> stats.Interval:
    """Interval of a difference of independent estimates from their own intervals (MOVER, Zou and Donner 2008).

    Example:
        >>> independent_difference(stats.Interval(5.0, 2.0, 8.0), stats.Interval(1.0, -3.0, 5.0))
        Interval(estimate=4.0, low=-1.0, high=9.0)
    """
    centre = ours.estimate - theirs.estimate
    down = ((ours.estimate - ours.low) ** 2 + (theirs.high - theirs.estimate) ** 2) ** 0.5
    up = ((ours.high - ours.estimate) ** 2 + (theirs.estimate - theirs.low) ** 2) ** 0.5
    return stats.Interval(centre, centre - down, centre + up)


class _Mean(NamedTuple):
    interval: stats.Interval
    values: Tensor
    prompts: int


def _mean(name: str, evaluation: Evaluation) -> _Mean | None:
    found = [(clip.prompt_id, value) for clip in evaluation.clips if (value := clip.measures.get(name)) is not None]
    if not found:
        return None
    prompts, values = zip(*found, strict=True)
    interval = stats.over_prompts(values, prompts)
    return _Mean(interval, torch.tensor(values, dtype=torch.float64), len(set(prompts)))
