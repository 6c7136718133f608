"""What a bake-off found in plain sentences, the disappointing ones included."""

import math
from collections.abc import Iterable, Iterator, Sequence

from reelign.bakeoff.race import Ratio, Reach
from reelign.bakeoff.rank import Analysis, Board, Standing
from reelign.bakeoff.spec import FEWEST_SEEDS
from reelign.report import words
from reelign.report.tables import FEWEST_PROMPTS

_MOST_NAMED = 4
"""Entries that a sentence of the headline names; the tables have all."""
_NBSP = "\N{NO-BREAK SPACE}"


def headline(analysis: Analysis) -> tuple[str, ...]:
    """Who ends where on the target's measure, what was gained, how long it took, and at what price."""
    board = analysis.boards[0]
    if len(analysis.labels) == 1:
        first = [f"Only {analysis.labels[0]} has been run, so there is nothing to compare it with yet."]
    elif not analysis.decided:
        first = [_undecided(analysis, board)]
    else:
        first = [_order(board)]
    found = [*first, _gains(analysis, board), _times(analysis), _price(analysis)]
    return tuple(sentence for sentence in found if sentence)


def _undecided(analysis: Analysis, board: Board) -> str:
    stands = [_at(s, board) for s in board.standings[:_MOST_NAMED]]
    why = f"{few(analysis)} too few to tell a method from its luck"
    return f"Nothing is ranked: {why}. {_of(board)}: {words.join(stands)}."


def few(analysis: Analysis) -> str:
    """What there is not enough of, with its verb."""
    seeds, prompts = len(analysis.seeds), analysis.prompts
    short = [words.count(seeds, "seed")] if seeds < FEWEST_SEEDS else []
    short += [words.count(prompts, "prompt")] if prompts < FEWEST_PROMPTS else []
    return f"{words.join(short)} {'is' if short == ['1 seed'] else 'are'}"


def _order(board: Board) -> str:
    """Who leads, and who ends behind; entries that do not differ are never put in an order."""
    leaders = [s for s in board.standings if s.rank == 1]
    rest = [s for s in board.standings if s.rank > 1]
    behind = [s for s in rest if any(s.label not in leader.same_as for leader in leaders)]
    level = [s for s in rest if s not in behind]
    if not rest:
        return f"{_of(board)} there is no difference beyond the noise between {_list(leaders, board)}."
    if len(leaders) == 1:
        text = f"{_of(board)} {_at(leaders[0], board)} ends ahead of {_list(behind, board)}"
    else:
        text = f"{_of(board)} {_list(leaders, board)} lead, with no difference between them beyond the noise"
        if behind:
            whom = "one of them" if len(leaders) == 2 else "some of them"
            text += f"; {_list(behind, board)} {_verb(behind, 'end')} behind at least {whom}"
    return f"{text}; there is no difference to {_list(level, board)}." if level else f"{text}."


def _ahead_of(standing: Standing, board: Board) -> list[str]:
    """Labels of those that are better beyond noise."""
    ahead = [p.first for p in board.pairs if p.second == standing.label and p.change.verdict == "better"]
    return ahead + [p.second for p in board.pairs if p.first == standing.label and p.change.verdict == "worse"]


def _gains(analysis: Analysis, board: Board) -> str:
    start = next(iter(board.curves.values()))[0].level.estimate
    origin = f"the start ({words.number(start, board.measure.rate)})"
    if not analysis.decided:
        return ""
    ways = {
        "better": ("end", f"better than {origin}"),
        "no difference": ("show", f"no gain over {origin}"),
        "worse": ("end", f"worse than {origin}"),
    }
    by = {v: who for v in ways if (who := [s.label for s in board.standings if s.gain.verdict == v])}
    if by.keys() == {"better"}:
        return f"{by['better'][0] if len(by['better']) == 1 else 'Every entry'} ends better than {origin}."
    told = [f"{_names(who)} {_verb(who, ways[v][0])} {ways[v][1]}" for v, who in by.items()]
    return f"{'; '.join(told)}."


def _times(analysis: Analysis) -> str:
    """How long the others take to the target, in the baseline's forward-units."""
    told = []
    for reach in sorted(analysis.reaches, key=lambda r: r.units.estimate):
        ratio = reach.units_ratio
        if ratio is None or ratio.verdict not in ("faster", "slower") or not math.isfinite(reach.units.estimate):
            continue
        told.append(f"{reach.label} needs {times(ratio)} the forward-units of {analysis.baseline}")
    if never := _late(analysis):
        told.append(f"{_names(never)} {_verb(never, 'do', 'does')} not get there within the budget")
    level = words.number(analysis.target.estimate, analysis.boards[0].measure.rate)
    if told:
        return f"To get to {level}, {'; '.join(told)}."
    if analysis.decided and len(analysis.reaches) > 1:
        return f"There is no difference in the time to get to {level}."
    return ""


def _late(analysis: Analysis) -> list[str]:
    """Labels of those that do not get to the target."""
    return [reach.label for reach in analysis.reaches if not math.isfinite(reach.units.estimate)]


def _price(analysis: Analysis) -> str:
    """Other ranked measures that got worse."""
    told = []
    for board in analysis.boards[1:]:
        lost = [s for s in board.standings if s.gain.verdict == "worse"]
        if lost:
            start = words.number(next(iter(board.curves.values()))[0].level.estimate, board.measure.rate)
            told.append(f"{words.plain(board.measure.name)} got worse with {_list(lost, board)}, from {start}")
    return f"At a price: {'; '.join(told)}." if told else ""


def negative(analysis: Analysis) -> Iterator[str]:
    """What did not work: no gain, losses, targets that were not reached, runs that stopped."""
    for index, board in enumerate(analysis.boards):
        name, rate = words.plain(board.measure.name), board.measure.rate
        for s in board.standings:
            d = s.gain.difference
            by = words.signed(d.estimate, rate) + (" points" if rate else "")
            by += f" {words.signed_limits(d.low, d.high, rate)}"
            if s.gain.verdict == "worse":
                yield f"{s.label} ends worse on {name} than it started: {by}."
            elif s.gain.verdict == "no difference" and index == 0 and analysis.decided:
                yield f"{s.label} shows no gain on {name} beyond the noise: {by}."
    level = words.number(analysis.target.estimate, analysis.boards[0].measure.rate)
    for label in _late(analysis):
        yield f"{label} does not get to {level} within the budget."
    for board in analysis.boards:
        for s in board.standings:
            if analysis.baseline in _ahead_of(s, board):
                yield f"{s.label} ends behind {analysis.baseline} on {words.plain(board.measure.name)}."
    for s in analysis.stops:
        yield f"{s.label} with seed {s.seed} stopped after iteration {s.step}: {s.why}"


def times(ratio: Ratio) -> str:
    r"""A ratio of times with its limits, as far as they are known.

    Example:
        >>> times(Ratio(0.5, 0.25, 0.8, "faster")), times(Ratio(None, 1.2, math.inf, "slower"))
        ('0.50 [0.25, 0.80]\xa0times', 'at least 1.2\xa0times')
    """
    if ratio.value is None:
        if math.isinf(ratio.high):
            return f"at least {ratio.low:.2g}{_NBSP}times"
        return f"at most {ratio.high:.2g}{_NBSP}times"
    return f"{ratio.value:.2f} {between(ratio.low, ratio.high, '{:.2f}')}{_NBSP}times"


def between(low: float, high: float, form: str) -> str:
    """Limits in brackets; an infinite one is beyond the budget.

    Example:
        >>> between(0.5, math.inf, "{:.1f}")
        '[0.5, –]'
    """
    return "[" + ", ".join(form.format(v) if math.isfinite(v) else "\N{EN DASH}" for v in (low, high)) + "]"


def table(analysis: Analysis) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows for a terminal, in the order of the target's measure."""
    reaches = {reach.label: reach for reach in analysis.reaches}
    header = ["rank", "entry"]
    header += [text for board in analysis.boards for text in (words.plain(board.measure.name), "95 % interval")]
    rows = []
    for standing in analysis.boards[0].standings:
        row = [f"{standing.rank} {standing.groups}" if analysis.decided else "", standing.label]
        for board in analysis.boards:
            final = next(s for s in board.standings if s.label == standing.label).final
            row += [words.number(final.estimate, board.measure.rate), words.limits(*final[1:], board.measure.rate)]
        row.append(reached(reaches.get(standing.label)))
        rows.append(tuple(text.replace(_NBSP, " ") for text in row))
    level = words.number(analysis.target.estimate, analysis.boards[0].measure.rate).replace(_NBSP, " ")
    return (*header, f"units to {level}"), rows


def reached(reach: Reach | None) -> str:
    """Forward-units to the target."""
    if reach is None:
        return ""
    return f"{reach.units.estimate:,.0f}" if math.isfinite(reach.units.estimate) else "not reached"


def _of(board: Board) -> str:
    return f"On {words.plain(board.measure.name)}" + ("" if board.measure.higher_is_better else " (lower is better)")


def _at(standing: Standing, board: Board) -> str:
    return f"{standing.label} ({words.number(standing.final.estimate, board.measure.rate)})"


def _list(standings: Iterable[Standing], board: Board) -> str:
    return _names([_at(s, board) for s in standings])


def _names(texts: Sequence[str]) -> str:
    """The first few of many."""
    if len(texts) <= _MOST_NAMED + 1:
        return words.join(list(texts))
    return f"{', '.join(texts[:_MOST_NAMED])} and {len(texts) - _MOST_NAMED} more"


def _verb(who: Sequence[object], plural: str, singular: str = "") -> str:
    return plural if len(who) > 1 else singular or f"{plural}s"
