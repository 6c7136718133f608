"""What to keep in mind before believing the numbers of a run."""

import math
from dataclasses import dataclass

from reelign.report import facts, words
from reelign.report.load import Run
from reelign.report.tables import FEWEST_PROMPTS, TOO_FEW, Difference, MeasureTable, Row

_EDGE = 5
"""A reward's rise compares the first and the last such part of a stage's steps."""
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Caveat:
    """Something to keep in mind; `grave` ones put a result in doubt rather than qualify it."""

    text: str
    grave: bool = False


def caveats(run: Run, table: MeasureTable) -> tuple[Caveat, ...]:
    """What qualifies the numbers of this run, the grave ones first."""
    found = [
        *_hacking(run, table),
        *_given_back(run, table),
        *_trained_on(table),
        *_missing(run),
        *_infinite(run),
        *_unlike_evaluations(run),
        *(Caveat(words.sentence(note)) for note in run.notes),
        *(Caveat(f"{words.title(stage.stage)}: {words.sentence(stage.note)}") for stage in run.stages if stage.note),
        *_fallen(run),
        *_in_general(run),
    ]
    return tuple(sorted(found, key=lambda caveat: not caveat.grave))


def _in_general(run: Run) -> list[Caveat]:
    if run.final is None:
        return []
    prompts = len(run.final.prompts)
    few = (
        f"Only {words.count(prompts, 'prompt')} evaluated: {TOO_FEW} a difference from chance, also where a gate "
        f"passed; evaluate {FEWEST_PROMPTS} or more."
    )
    return [
        *([Caveat(few)] if prompts < FEWEST_PROMPTS else []),
        Caveat(
            "Intervals are 95 % bootstrap intervals over prompts. They say how much another draw of prompts could "
            "change a number, not how much another training seed could: this is one run."
        ),
        Caveat(
            "Intervals are not corrected for looking at many numbers: among twenty comparisons without any effect, "
            "one on average is marked as a difference."
        ),
    ]


def _hacking(run: Run, table: MeasureTable) -> list[Caveat]:
    """The reward rose while a held-out measure fell: what a hacked reward looks like."""
    found = []
    for stage in run.stages:
        series = run.metrics.get(stage.stage, {}).get("online/reward")
        rewards = [value for value in series.values if math.isfinite(value)] if series else []
        if len(rewards) < 2 * _EDGE or stage.stage not in table.labels:
            continue
        part = len(rewards) // _EDGE
        before, after = sum(rewards[:part]) / part, sum(rewards[-part:]) / part
        fell = [words.plain(row.measure) for row, *_ in _worse(table, stage.stage)]
        if after > before and words.differ(before, after) and fell:
            found.append(
                Caveat(
                    f"In {words.title(stage.stage)} the reward rose from {words.number(before)} to "
                    f"{words.number(after)} while held-out {words.join(fell)} got worse. That is what a hacked reward "
                    f"looks like: watch the clips.{_dropped(run, stage.stage)}",
                    grave=True,
                )
            )
    return found


def _given_back(run: Run, table: MeasureTable) -> list[Caveat]:
    """A stage that lost what an earlier one had gained; the headline, from start to end, would not show it."""
    found = []
    for label in table.labels:
        lost = []
        for row, mean, d in _worse(table, label):
            by = words.signed(d.difference, row.rate, mean) + (" points" if row.rate else "")
            lost.append(f"{words.plain(row.measure)} ({by} {words.signed_limits(d.low, d.high, row.rate, mean)})")
        if lost:
            text = f"{words.title(label)} made this worse than it was before: {words.join(lost)}."
            found.append(Caveat(text + _dropped(run, label)))
    return found


def _worse(table: MeasureTable, label: str) -> list[tuple[Row, float, Difference]]:
    """Held-out measures that a stage made worse, with the level that it left and what it took."""
    cells = [(row, cell) for row in table.rows if not row.trained_on and (cell := row.at(label))]
    changes = [(row, cell.mean, cell.to_previous) for row, cell in cells]
    return [(row, mean, change) for row, mean, change in changes if change and change.verdict == "worse"]


def _trained_on(table: MeasureTable) -> list[Caveat]:
    names = [words.plain(row.measure) for row in table.rows if row.trained_on]
    if not names:
        return []
    verb = "is a measure that was" if len(names) == 1 else "are measures that were"
    sentence = f"{words.join(names)} {verb} also trained on, so a rise there proves nothing about the videos."
    return [Caveat(words.sentence(sentence), grave=True)]


def _missing(run: Run) -> list[Caveat]:
    return [
        Caveat(
            f"evaluations/{label}.json is missing although the stage was evaluated, so what {words.title(label)} "
            "changed is not shown, and the stage after it is compared with the one before.",
            grave=True,
        )
        for label in run.missing
    ]


def _infinite(run: Run) -> list[Caveat]:
    return [
        Caveat(
            f"{words.sentence(words.plain(name))[:-1]} was infinite on {words.count(clips, 'clip')} of "
            f"{facts.named(run, evaluation.label)}, which are left out of its numbers; mend the metric.",
            grave=True,
        )
        for evaluation in run.evaluations.values()
        for name, clips in evaluation.infinite.items()
    ]


def _unlike_evaluations(run: Run) -> list[Caveat]:
    found = []
    base = run.base
    for evaluation in run.evaluations.values():
        if base is None or evaluation is base:
            continue
        if evaluation.label in run.aside:
            name = words.title(evaluation.label)
            found.append(Caveat(f"{name} is an evaluation with settings of its own, so it is shown but not compared."))
            continue
        name = facts.named(run, evaluation.label)
        if evaluation.sampler != base.sampler:
            found.append(
                Caveat(f"{name} was sampled with other settings than the base; part of a difference is theirs.", True)
            )
        if not evaluation.shares_noise(base):
            found.append(
                Caveat(f"{name} was sampled from other noise than the base, so its clips are paired by prompt only.")
            )
    return found


def _fallen(run: Run) -> list[Caveat]:
    found = []
    for stage in run.stages:
        if stage.gate and stage.gate.fallen_slices:
            fallen = [f"{words.plain(f.metric)} on {words.where(f.slice)}" for f in stage.gate.fallen_slices]
            more = len(fallen) - _MOST_NAMED
            named = [*fallen[:_MOST_NAMED], f"{more} more"] if more > 1 else fallen
            text = f"{words.title(stage.stage)} made some slices worse: {words.join(named)}."
            found.append(Caveat(text + _dropped(run, stage.stage), grave=stage.stage not in run.failed))
    return found


def _dropped(run: Run, label: str) -> str:
    return " Its gate failed, so its weights were not kept." if label in run.failed else ""
