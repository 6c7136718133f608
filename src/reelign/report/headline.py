"""What a run did in plain sentences with numbers, and what to keep in mind before believing them."""

from dataclasses import dataclass

from markupsafe import Markup, escape

from reelign.report import words
from reelign.report.load import BASE, Run
from reelign.report.tables import FEWEST_PROMPTS, Cell, MeasureTable, Row

_MOST_NAMED = 3
_EDGE = 5
"""A reward's rise compares the first and the last such part of a stage's steps."""


@dataclass(frozen=True, slots=True)
class Caveat:
    """Something to keep in mind; `grave` ones put a result in doubt rather than qualify it."""

    text: str
    grave: bool = False


def headline(run: Run, table: MeasureTable) -> tuple[Markup, ...]:
    """One to four sentences: what got better, what got worse, what stayed, and whether a gate failed."""
    sentences = []
    held_out = [row for row in table.rows if not row.trained_on]
    compared = [(row, cell) for row in held_out if (cell := row.at(table.final)) and cell.to_base]
    if not compared:
        sentences.append(_no_comparison(run, held_out))
    else:
        better = _ranked([(row, cell) for row, cell in compared if _verdict(cell) == "better"])
        worse = _ranked([(row, cell) for row, cell in compared if _verdict(cell) == "worse"])
        same = [(row, cell) for row, cell in compared if _verdict(cell) == "no difference"]
        through = words.join([words.title(s) for s in table.labels if s != BASE and s not in run.failed])
        if better:
            sentences.append(Markup("Through {}, {}.").format(through, _moves(better)))
        elif not worse:
            sentences.append(Markup("Through {}, no held-out measure moved beyond its noise.").format(through))
        if worse:
            lead = "But this got worse" if better else f"Through {through}, this got worse"
            sentences.append(Markup("{}: {}.").format(lead, _moves(worse)))
        if same and (better or worse):
            sentences.append(Markup("No measurable difference in {}.").format(_join([_stayed(*item) for item in same])))
    failed = [words.title(stage.stage) for stage in run.stages if stage.stage in run.failed]
    if failed:
        plural = "gates" if len(failed) > 1 else "gate"
        text = "The {} {} <strong>failed</strong>, and the weights from before were kept."
        sentences.append(Markup(text).format(words.join(failed), plural))
    if run.planned:
        ahead = words.join([words.title(name) for name in run.planned])
        verb = "are" if len(run.planned) > 1 else "is"
        sentences.append(Markup("The run is unfinished: {} {} still to come.").format(ahead, verb))
    return tuple(sentences)


def caveats(run: Run, table: MeasureTable) -> tuple[Caveat, ...]:
    """What qualifies the numbers of this run, the grave ones first."""
    found = [
        *_hacking(run, table),
        *_given_back(run, table),
        *_trained_on(table),
        *_unlike_evaluations(run),
        *_notes(run),
        *_fallen(run),
    ]
    if run.final is not None:
        prompts = len(run.final.prompts)
        if prompts < FEWEST_PROMPTS:
            found.append(
                Caveat(
                    f"Only {prompts} prompts were evaluated; below {FEWEST_PROMPTS}, nothing is called a difference."
                )
            )
        found.append(
            Caveat(
                "Intervals are 95 % bootstrap intervals over prompts. They say how much another draw of prompts could "
                "change a number, not how much another training seed could: this is one run."
            )
        )
        found.append(
            Caveat(
                "Intervals are not corrected for looking at many numbers: among twenty comparisons without any effect, "
                "one on average is marked as a difference."
            )
        )
    return tuple(sorted(found, key=lambda caveat: not caveat.grave))


def _verdict(cell: Cell) -> str:
    assert cell.to_base is not None
    return cell.to_base.verdict


def _ranked(items: list[tuple[Row, Cell]]) -> list[tuple[Row, Cell]]:
    """Shares before scores, which have no common scale; larger moves first."""
    return sorted(
        items, key=lambda item: (not item[0].rate, -abs(item[1].to_base.difference if item[1].to_base else 0))
    )


def _moves(items: list[tuple[Row, Cell]]) -> Markup:
    text = _join([_move(row, cell) for row, cell in items[:_MOST_NAMED]])
    more = len(items) - _MOST_NAMED
    return text + f" ({more} more below)" if more > 0 else text


def _move(row: Row, cell: Cell) -> Markup:
    name, before, after = _told(row, cell)
    verb = "rose" if after > before else "fell"
    return Markup("{} {} from {} to <strong>{}</strong>").format(
        name, verb, words.number(before, row.rate), words.number(after, row.rate)
    )


def _stayed(row: Row, cell: Cell) -> Markup:
    name, before, after = _told(row, cell)
    numbers = words.number(before, row.rate), words.number(after, row.rate)
    return Markup("{} ({}\N{NO-BREAK SPACE}\N{RIGHTWARDS ARROW}\N{NO-BREAK SPACE}{})").format(name, *numbers)


def _told(row: Row, cell: Cell) -> tuple[str, float, float]:
    """A measure as the headline tells it: shares as what goes wrong, which is what a reader pictures."""
    assert cell.to_base is not None
    base = row.at(BASE)
    before, after = base.mean if base else cell.to_base.before, cell.mean
    wrong = words.failures(row.measure)
    if row.rate and row.higher_is_better and wrong is not None:
        return wrong, 1 - before, 1 - after
    name = words.plain(row.measure)
    plural = "" if name.endswith("s") or not row.rate or row.higher_is_better else "s"
    return name + plural, before, after


def _join(items: list[Markup]) -> Markup:
    return Markup(words.join([str(escape(item)) for item in items]))


def _no_comparison(run: Run, rows: list[Row]) -> Markup:
    if run.final is None:
        return Markup("Nothing has been evaluated yet.")
    stands = [
        Markup("{} <strong>{}</strong>").format(words.plain(row.measure), words.number(cell.mean, row.rate))
        for row in rows[:_MOST_NAMED]
        if (cell := row.at(run.final.label))
    ]
    where = words.title(run.final.label)
    if not stands:
        return Markup("{} has been evaluated, but no held-out measure applied.").format(where)
    return Markup("{} stands at {}; there is nothing to compare it with yet.").format(where, _join(stands))


def _hacking(run: Run, table: MeasureTable) -> list[Caveat]:
    """The reward rose while a held-out measure fell: what a hacked reward looks like."""
    found = []
    for stage in run.stages:
        rewards = [
            m.values["online/reward"] for m in run.metrics if m.stage == stage.stage and "online/reward" in m.values
        ]
        if len(rewards) < 2 * _EDGE or stage.stage not in table.labels:
            continue
        part = len(rewards) // _EDGE
        before, after = sum(rewards[:part]) / part, sum(rewards[-part:]) / part
        fell = []
        for row in table.rows:
            cell = row.cells[table.labels.index(stage.stage)]
            if cell and cell.to_previous and cell.to_previous.verdict == "worse" and not row.trained_on:
                fell.append(words.plain(row.measure))
        if after > before and fell:
            found.append(
                Caveat(
                    f"In {words.title(stage.stage)} the reward rose from {words.number(before)} to "
                    f"{words.number(after)} while held-out {words.join(fell)} got worse. That is what a hacked reward "
                    "looks like: watch the clips.",
                    grave=True,
                )
            )
    return found


def _given_back(run: Run, table: MeasureTable) -> list[Caveat]:
    """A stage that lost what an earlier one had gained; the headline, from start to end, would not show it."""
    found = []
    for index, label in enumerate(table.labels):
        lost = []
        for row in table.rows:
            cell = row.cells[index]
            if cell and cell.to_previous and cell.to_previous.verdict == "worse" and not row.trained_on:
                d = cell.to_previous
                by = words.signed(d.difference, row.rate), words.limits(d.low, d.high, row.rate, difference=True)
                lost.append(f"{words.plain(row.measure)} ({by[0]}{' points' if row.rate else ''} {by[1]})")
        if lost:
            text = f"{words.title(label)} made this worse than it was before: {words.join(lost)}."
            found.append(Caveat(text + _dropped(run, label)))
    return found


def _trained_on(table: MeasureTable) -> list[Caveat]:
    names = [words.plain(row.measure) for row in table.rows if row.trained_on]
    if not names:
        return []
    verb = "is a measure that was" if len(names) == 1 else "are measures that were"
    sentence = f"{words.join(names)} {verb} also trained on, so a rise there proves nothing about the videos."
    return [Caveat(sentence[:1].upper() + sentence[1:], grave=True)]


def _unlike_evaluations(run: Run) -> list[Caveat]:
    found = []
    base = run.base
    for evaluation in run.evaluations.values():
        if base is None or evaluation is base:
            continue
        name = words.title(evaluation.label)
        if evaluation.sampler != base.sampler:
            found.append(
                Caveat(f"{name} was sampled with other settings than the base; part of a difference is theirs.", True)
            )
        if not evaluation.shares_noise(base):
            found.append(
                Caveat(f"{name} was sampled from other noise than the base, so its clips are paired by prompt only.")
            )
    return found


def _notes(run: Run) -> list[Caveat]:
    return [Caveat(f"{words.title(stage.stage)}: {stage.note}") for stage in run.stages if stage.note]


def _fallen(run: Run) -> list[Caveat]:
    found = []
    for stage in run.stages:
        if stage.gate and stage.gate.fallen_slices:
            where = words.join([f"{words.plain(f.metric)} on {f.slice}" for f in stage.gate.fallen_slices])
            text = f"{words.title(stage.stage)} made some slices worse: {where}."
            found.append(Caveat(text + _dropped(run, stage.stage), grave=stage.stage not in run.failed))
    return found


def _dropped(run: Run, label: str) -> str:
    return " Its gate failed, so its weights were not kept." if label in run.failed else ""
