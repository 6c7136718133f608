"""What a run did, in one to four plain sentences with numbers."""

from markupsafe import Markup

from reelign.report import stations, words
from reelign.report.run import BASE, Run
from reelign.report.tables import TOO_FEW, Cell, Difference, MeasureTable, Row, Verdict

_MOST_NAMED = 3

Found = list[tuple[Row, Cell, Difference]]
"""Measures where the run ends, and what it changed since the base."""


def headline(run: Run, *tables: MeasureTable) -> tuple[Markup, ...]:
    """What got better, what got worse, what stayed, whether a gate failed, and what is still to come.

    The first three are told of each view of the run, whose table is given.
    """
    told = [line for view, table in zip(run.views, tables, strict=True) for line in _under(view, table)]
    return (*told, *_at_best(run), *_not_kept(run), *_ahead(run))


def _at_best(run: Run) -> list[Markup]:
    """Best against best at equal forwards a clip, where that was searched."""
    if run.search is None:
        return []
    by, chosen = run.search.by, {(each.model, each.forwards): each for each in run.search.chosen}
    told = []
    for contest in run.search.contests:
        found = contest.measures.get(by)
        if found is None:
            continue
        rate = by in run.rates
        suits = [chosen[name, contest.forwards].sampler for name in (contest.first, contest.other)]
        text = Markup(
            '<span class="under">Best against best at {} forwards a clip.</span> {} with {}, {} with {}: {} from {} to '
            "<strong>{}</strong> ({} {}), {}. The settings were chosen on {} and judged on {} others."
        )
        beyond = found.low > 0 or found.high < 0
        verdict = "no difference beyond noise"
        if beyond:
            verdict = "better" if (found.difference > 0) == found.higher_is_better else "worse"
        ends = words.number(found.before, rate), words.number(found.after, rate)
        change = words.signed(found.difference, rate), words.signed_limits(found.low, found.high, rate)
        which = [
            words.title(contest.first),
            words.sampled(suits[0]),
            words.title(contest.other),
            words.sampled(suits[1]),
        ]
        halves = words.count(run.search.chosen_on, "prompt"), run.search.judged_on
        told.append(text.format(contest.forwards, *which, words.plain(by), *ends, *change, verdict, *halves))
    return told


def _under(view: Run, table: MeasureTable) -> list[Markup]:
    """What there is to say of one sampler, which is named where there are several."""
    if view.only_aside:
        return []
    held_out = [row for row in table.rows if not row.trained_on]
    ends = [(row, cell) for row in held_out if (cell := row.at(table.final))]
    compared = [(row, cell, cell.to_base) for row, cell in ends if cell.to_base]
    first, *more = _changes(view, compared) if compared else [_no_comparison(view, held_out)]
    return [Markup('<span class="under">{}.</span> {}').format(view.title, first) if view.title else first, *more]


def _changes(run: Run, compared: Found) -> list[Markup]:
    def found(*verdicts: Verdict) -> Found:
        return [item for item in compared if item[2].verdict in verdicts]

    better, worse, tiny, few = found("better"), found("worse"), found("no difference that shows"), found(TOO_FEW)
    same = found("no difference", "no difference that shows")
    told: list[Markup] = []
    through = words.join([words.title(label) for label in run.kept])
    if better:
        told.append(Markup("Through {}, {}.").format(through, _moves(better, "improved")))
    if worse:
        lead = "But this got worse" if better else f"Through {through}, this got worse"
        told.append(Markup("{}: {}.").format(lead, _moves(worse, "")))
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
    missing = stations.unfinished(run)
    return [Markup("The run is unfinished: {}.").format(missing)] if missing else []


def _ranked(items: Found) -> Found:
    """Shares before scores, which have no common scale; larger moves first."""
    return sorted(items, key=lambda item: (not item[0].rate, -abs(item[2].difference)))


def _moves(items: Found, verb: str) -> Markup:
    return _named([_move(*item) for item in _ranked(items)], verb)


def _stays(items: Found) -> Markup:
    return _named([_stayed(*item) for item in items])


def _named(items: list[Markup], verb: str = "") -> Markup:
    """The first few, and how many more there are."""
    more = len(items) - _MOST_NAMED
    if more > 1:
        items = [*items[:_MOST_NAMED], Markup(f"{more} more measures {verb}".rstrip())]
    return _joined(items)


def _joined(items: list[Markup]) -> Markup:
    return Markup(words.join([str(item) for item in items]))


def _move(row: Row, cell: Cell, change: Difference) -> Markup:
    name, before, after = _told(row, cell, change)
    verb = "rose" if after > before else "fell"
    return Markup("{} {} from {} to <strong>{}</strong>").format(
        name, verb, words.number(before, row.rate), words.number(after, row.rate)
    )


def _stayed(row: Row, cell: Cell, change: Difference) -> Markup:
    name, before, after = _told(row, cell, change)
    numbers = words.number(before, row.rate), words.number(after, row.rate)
    if numbers[0] == numbers[1]:
        return Markup("{} ({})").format(name, numbers[0])
    return Markup("{} ({}\N{NO-BREAK SPACE}\N{RIGHTWARDS ARROW}\N{NO-BREAK SPACE}{})").format(name, *numbers)


def _told(row: Row, cell: Cell, change: Difference) -> tuple[str, float, float]:
    """A measure as the headline tells it: shares as what goes wrong, which is what a reader pictures."""
    before, after = _levels(row, cell, change)
    wrong = words.failures(row.measure)
    if row.rate and row.higher_is_better and wrong is not None:
        return wrong, 1 - before, 1 - after
    name = words.plain(row.measure)
    plural = "" if name.endswith("s") or not row.rate or row.higher_is_better else "s"
    return name + plural, before, after


def _levels(row: Row, cell: Cell, change: Difference) -> tuple[float, float]:
    """The levels that the table shows; those of the pairs where other clips count in them and say something else."""
    base = row.at(BASE)
    if base is None:
        return change.before, change.after
    agree = (cell.mean - base.mean) * change.difference > 0 and words.differ(base.mean, cell.mean, row.rate)
    return (base.mean, cell.mean) if agree or not change.moved else (change.before, change.after)


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
    nothing = "there is nothing to compare it with"
    why = f"no stage was kept, so {nothing}" if run.failed else f"{nothing} yet"
    return Markup("{} stands at {}; {}.").format(where, _joined(stands), why)
