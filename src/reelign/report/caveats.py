"""What to keep in mind before believing the numbers of a run."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from reelign.records import judged_as
from reelign.report import stations, words
from reelign.report.run import Run
from reelign.report.tables import FEWEST_PROMPTS, TOO_FEW, Difference, MeasureTable, Row

_EDGE = 5
"""A reward's rise compares the first and the last such part of a stage's steps."""
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Caveat:
    """Something to keep in mind; `grave` ones put a result in doubt rather than qualify it."""

    text: str
    grave: bool = False


Caveats = Iterator[Caveat]


def caveats(run: Run, *tables: MeasureTable) -> tuple[Caveat, ...]:
    """What qualifies the numbers of this run, the grave ones first; each view of it has its table."""
    found = [
        *(caveat for view, table in zip(run.views, tables, strict=True) for caveat in _of_view(view, table)),
        *_trained_on(tables[0]),
        *(Caveat(words.sentence(note)) for note in run.notes),
        *(Caveat(f"{words.title(stage.stage)}: {words.sentence(stage.note)}") for stage in run.stages if stage.note),
        *_fallen(run),
        *_in_general(run),
    ]
    return tuple(sorted(found, key=lambda caveat: not caveat.grave))


def _of_view(view: Run, table: MeasureTable) -> Caveats:
    """What qualifies the numbers under one sampler, which is named where there are several."""
    found = [*_hacking(view, table), *_given_back(view, table), *_missing(view), *_infinite(view)]
    for caveat in (*found, *_unlike_evaluations(view)):
        yield replace(caveat, text=f"{view.title}: {caveat.text}") if view.title else caveat


def _in_general(run: Run) -> Caveats:
    if run.final is None:
        return
    prompts = len(run.final.prompts)
    if prompts < FEWEST_PROMPTS:
        yield Caveat(
            f"Only {words.count(prompts, 'prompt')} evaluated: {TOO_FEW} a difference from chance, also where a gate "
            f"passed; evaluate {FEWEST_PROMPTS} or more."
        )
    yield Caveat(
        "Intervals are 95 % bootstrap intervals over prompts. They say how much another draw of prompts could "
        "change a number, not how much another training seed could: this is one run."
    )
    yield Caveat(
        "Intervals are not corrected for looking at many numbers: among twenty comparisons without any effect, "
        "one on average is marked as a difference."
    )


def _hacking(run: Run, table: MeasureTable) -> Caveats:
    """The reward rose while a held-out measure fell: what a hacked reward looks like."""
    for stage in run.stages:
        series = run.metrics.get(stage.stage, {}).get("online/reward")
        rewards = [value for value in series.values if math.isfinite(value)] if series else []
        if len(rewards) < 2 * _EDGE or stage.stage not in table.labels:
            continue
        part = len(rewards) // _EDGE
        before, after = sum(rewards[:part]) / part, sum(rewards[-part:]) / part
        fell = [words.plain(row.measure) for row, *_ in _worse(table, stage.stage)]
        if after > before and words.differ(before, after) and fell:
            yield Caveat(
                f"In {words.title(stage.stage)} the reward rose from {words.number(before)} to "
                f"{words.number(after)} while held-out {words.join(fell)} got worse. That is what a hacked reward "
                f"looks like: watch the clips.{_dropped(run, stage.stage)}",
                grave=True,
            )


def _given_back(run: Run, table: MeasureTable) -> Caveats:
    """A stage that lost what an earlier one had gained; the headline, from start to end, would not show it."""
    for label in table.labels:
        lost = []
        for row, mean, d in _worse(table, label):
            by = words.signed(d.difference, row.rate, mean) + (" points" if row.rate else "")
            lost.append(f"{words.plain(row.measure)} ({by} {words.signed_limits(d.low, d.high, row.rate, mean)})")
        if lost:
            text = f"{words.title(label)} made this worse than it was before: {words.join(lost)}."
            yield Caveat(text + _dropped(run, label))


def _worse(table: MeasureTable, label: str) -> list[tuple[Row, float, Difference]]:
    """Held-out measures that a stage made worse, with the level that it left and what it took."""
    cells = [(row, cell) for row in table.rows if not row.trained_on and (cell := row.at(label))]
    changes = [(row, cell.mean, cell.to_previous) for row, cell in cells]
    return [(row, mean, change) for row, mean, change in changes if change and change.verdict == "worse"]


def _trained_on(table: MeasureTable) -> Caveats:
    names = [words.plain(row.measure) for row in table.rows if row.trained_on]
    if names:
        verb = "is a measure that was" if len(names) == 1 else "are measures that were"
        sentence = f"{words.join(names)} {verb} also trained on, so a rise there proves nothing about the videos."
        yield Caveat(words.sentence(sentence), grave=True)


def _missing(run: Run) -> Caveats:
    for label in run.missing:
        yield Caveat(
            f"evaluations/{judged_as(label, run.sampler)}.json is missing although the stage was evaluated, so what "
            f"{words.title(label)} changed is not shown, and the stage after it is compared with the one before.",
            grave=True,
        )


def _infinite(run: Run) -> Caveats:
    for evaluation in run.evaluations.values():
        for name, clips in evaluation.infinite.items():
            yield Caveat(
                f"{words.sentence(words.plain(name))[:-1]} was infinite on {words.count(clips, 'clip')} of "
                f"{stations.named(run, evaluation.label)}, which are left out of its numbers; mend the metric.",
                grave=True,
            )


def _unlike_evaluations(run: Run) -> Caveats:
    base = run.base
    for evaluation in run.evaluations.values():
        if base is None or evaluation is base:
            continue
        if evaluation.label in run.aside:
            name = words.title(evaluation.label)
            yield Caveat(f"{name} is an evaluation with settings of its own, so it is shown but not compared.")
            continue
        name = stations.named(run, evaluation.label)
        if evaluation.sampler != base.sampler:
            yield Caveat(f"{name} was sampled with other settings than the base; part of a difference is theirs.", True)
        if not evaluation.shares_noise(base):
            yield Caveat(f"{name} was sampled from other noise than the base, so its clips are paired by prompt only.")


def _fallen(run: Run) -> Caveats:
    for stage in run.stages:
        if stage.gate and stage.gate.fallen_slices:
            fallen = [stations.fell(run, f) for f in stage.gate.fallen_slices]
            more = len(fallen) - _MOST_NAMED
            named = [*fallen[:_MOST_NAMED], f"{more} more"] if more > 1 else fallen
            text = f"{words.title(stage.stage)} made some slices worse: {words.join(named)}."
            yield Caveat(text + _dropped(run, stage.stage), grave=stage.stage not in run.failed)


def _dropped(run: Run, label: str) -> str:
    return " Its gate failed, so its weights were not kept." if label in run.failed else ""
