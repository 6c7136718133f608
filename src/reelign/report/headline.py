"""What a run did, in one to four plain sentences with numbers."""

from markupsafe import Markup, escape

from reelign.report import facts, words
from reelign.report.load import BASE, Run
from reelign.report.tables import TOO_FEW, Cell, MeasureTable, Row, Verdict

_MOST_NAMED = 3

Found = list[tuple[Row, Cell]]


def headline(run: Run, table: MeasureTable) -> tuple[Markup, ...]:
    """What got better, what got worse, what stayed, whether a gate failed, and what is still to come."""
    held_out = [row for row in table.rows if not row.trained_on]
    compared = [(row, cell) for row in held_out if (cell := row.at(table.final)) and cell.to_base]
    told = _changes(run, compared) if compared else [_no_comparison(run, held_out)]
    return (*told, *_not_kept(run), *_ahead(run))


def _changes(run: Run, compared: Found) -> list[Markup]:
    def found(*verdicts: Verdict) -> Found:
        return [(row, cell) for row, cell in compared if cell.to_base and cell.to_base.verdict in verdicts]

    better, worse, tiny, few = found("better"), found("worse"), found("no difference that shows"), found(TOO_FEW)
    same = found("no difference", "no difference that shows")
    told: list[Markup] = []
    through = words.join([words.title(label) for label in run.kept])
    if better:
        told.append(Markup("Through {}, {}.").format(through, _moves(_ranked(better), "improved")))
    if worse:
        lead = "But this got worse" if better else f"Through {through}, this got worse"
        told.append(Markup("{}: {}.").format(lead, _moves(_ranked(worse), "")))
    if same and told:
        told.append(Markup("No measurable difference in {}.").format(_stays(same)))
    elif same:
        noise = "its noise by enough to show" if tiny else "its noise"
        told.append(Markup("Through {}, no held-out measure moved beyond {}: {}.").format(through, noise, _stays(same)))
    if few:
        lead = TOO_FEW.capitalize() if told else f"Through {through}: {TOO_FEW}"
        told.append(Markup("{} whether {} moved.").format(lead, _stays(few)))
    return told


def _not_kept(run: Run) -> list[Markup]:
    failed = [words.title(stage.stage) for stage in run.stages if stage.stage in run.failed]
    if not failed:
        return []
    gate = "gates" if len(failed) > 1 else "gate"
    result = f", and the result is that of {words.title(run.final.label)}" if run.final else ""
    text = Markup("The {} {} <strong>failed</strong>: the weights were not kept{}.")
    return [text.format(words.join(failed), gate, result)]


def _ahead(run: Run) -> list[Markup]:
    missing = facts.unfinished(run)
    return [Markup("The run is unfinished: {}.").format(missing)] if missing else []


def _ranked(items: Found) -> Found:
    """Shares before scores, which have no common scale; larger moves first."""
    return sorted(
        items, key=lambda item: (not item[0].rate, -abs(item[1].to_base.difference if item[1].to_base else 0))
    )


def _moves(items: Found, verb: str) -> Markup:
    return _named([_move(row, cell) for row, cell in items], verb)


def _stays(items: Found) -> Markup:
    return _named([_stayed(row, cell) for row, cell in items], "")


def _named(items: list[Markup], verb: str) -> Markup:
    """The first few, and how many more there are."""
    more = len(items) - _MOST_NAMED
    if more > 1:
        items = [*items[:_MOST_NAMED], Markup(f"{more} more measures {verb}".rstrip())]
    return Markup(words.join([str(escape(item)) for item in items]))


def _move(row: Row, cell: Cell) -> Markup:
    name, before, after = _told(row, cell)
    verb = "rose" if after > before else "fell"
    return Markup("{} {} from {} to <strong>{}</strong>").format(
        name, verb, words.number(before, row.rate), words.number(after, row.rate)
    )


def _stayed(row: Row, cell: Cell) -> Markup:
    name, before, after = _told(row, cell)
    numbers = words.number(before, row.rate), words.number(after, row.rate)
    if numbers[0] == numbers[1]:
        return Markup("{} ({})").format(name, numbers[0])
    return Markup("{} ({}\N{NO-BREAK SPACE}\N{RIGHTWARDS ARROW}\N{NO-BREAK SPACE}{})").format(name, *numbers)


def _told(row: Row, cell: Cell) -> tuple[str, float, float]:
    """A measure as the headline tells it: shares as what goes wrong, which is what a reader pictures."""
    before, after = _levels(row, cell)
    wrong = words.failures(row.measure)
    if row.rate and row.higher_is_better and wrong is not None:
        return wrong, 1 - before, 1 - after
    name = words.plain(row.measure)
    plural = "" if name.endswith("s") or not row.rate or row.higher_is_better else "s"
    return name + plural, before, after


def _levels(row: Row, cell: Cell) -> tuple[float, float]:
    """The levels that the table shows; those of the pairs where other clips count in them and say something else."""
    assert cell.to_base is not None
    base, pairs = row.at(BASE), cell.to_base
    if base is None:
        return pairs.before, pairs.after
    agree = (cell.mean - base.mean) * pairs.difference > 0 and words.differ(base.mean, cell.mean, row.rate)
    return (base.mean, cell.mean) if agree or not pairs.moved else (pairs.before, pairs.after)


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
    listed = Markup(words.join([str(stand) for stand in stands]))
    nothing = "there is nothing to compare it with"
    why = f"no stage was kept, so {nothing}" if run.failed else f"{nothing} yet"
    return Markup("{} stands at {}; {}.").format(where, listed, why)
