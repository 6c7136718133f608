"""Curves of several entries and stacked bars as inline SVG, without scripts or style attributes: a strict CSP holds."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

from markupsafe import Markup

from reelign.bakeoff.rank import Board, Cost, Point
from reelign.report import words
from reelign.report.frame import Frame, along, axes, interval_mark, limits, path, svg, ticks

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 148, 14, 40
COLOURS = 8
"""Colours of the style sheet; more entries take them again from the first, and their curves are dashed."""
CROWDED = 6
"""More entries than these, and intervals show only of the one that is pointed at."""
_WIDE = 2.0
"""Intervals this many times as wide as the median one do not stretch a crowded chart; its frame ends them."""
DODGE, WIDEST = 4.0, 24.0
"""Pixels between the intervals of two entries at a check, and between the first and the last."""
LINE_HEIGHT = 14.0
LONGEST = 17
"""Characters of a label that fit beside its curve."""
PARTS = {
    "rollout_s": "rollout",
    "decode_s": "decode",
    "reward_s": "reward",
    "update_s": "update",
    "other_s": "other",
}
"""Where a run's seconds go: fields of `Cost` and their names, in the order of a stacked bar."""


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A class of the style sheet for each entry."""
    return {
        label: f"k{index % COLOURS}" + (" again" if index // COLOURS % 2 else "") for index, label in enumerate(labels)
    }


def curves(board: Board, colour: Mapping[str, str], target: float | None) -> Markup:
    """Mean and interval of each entry at each check against forward-units; names stand at the curves' ends.

    Args:
        board: one measure.
        colour: class of each entry.
        target: a level to mark, if this measure has one.
    """
    rate, crowded = board.measure.rate, len(board.curves) > CROWDED
    height = max(HEIGHT, TOP + BOTTOM + math.ceil(LINE_HEIGHT * len(board.curves)))
    frame = _frame(board, target, crowded, height)
    shift = dict.fromkeys(board.curves, 0.0) if crowded else _shifts(list(board.curves))
    ends = {label: frame.y(curve[-1].level.estimate) for label, curve in board.curves.items()}
    names = spaced(ends, TOP + 4.0, frame.bottom)
    beside = [(tick, _level(tick, rate)) for tick in ticks(frame.low, frame.high, 5)]
    parts = [axes(frame, beside, along(frame, amount, WIDTH), "forward-units", WIDTH, height)]
    if target is not None:
        mark = Markup('<line class="target" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
        parts.append(mark.format(frame.left, frame.right, frame.y(target), frame.y(target)))
    for label, curve in board.curves.items():
        drawn = _curve(frame, label, curve, shift[label], rate)
        name = _name(frame, label, shift[label], ends[label], names[label])
        parts.append(Markup('<g class="curve {}">{}{}</g>').format(colour[label], drawn, name))
    label = f"{words.plain(board.measure.name)} by forward-units; the numbers stand in the table of levels"
    return svg("chart crowded" if crowded else "chart", WIDTH, height, label, parts)


def _frame(board: Board, target: float | None, crowded: bool, height: int) -> Frame:
    points = [point for curve in board.curves.values() for point in curve]
    levels = [point.level.estimate for point in points]
    usual = _WIDE * median(point.level.high - point.level.low for point in points) if crowded else math.inf
    spans = [point.level for point in points if point.level.high - point.level.low <= usual]
    levels += [limit for level in spans for limit in (level.low, level.high)]
    levels += [] if target is None else [target]
    last = max(point.units for point in points) or 1.0
    low, high = limits(levels)
    return Frame(float(LEFT), float(WIDTH - RIGHT), float(TOP), float(height - BOTTOM), 0.0, last, low, high)


def _curve(frame: Frame, label: str, curve: Sequence[Point], shift: float, rate: bool) -> Markup:
    at = [(frame.x(point.units) + (shift if point.units else 0.0), point) for point in curve]
    drawn = [path((x, frame.y(point.level.estimate)) for x, point in at)]
    for x, point in at:
        level = f"{words.number(point.level.estimate, rate)} {words.limits(*point.level[1:], rate)}"
        told = f"{label}, {point.units:,.0f} forward-units: {level}"
        drawn.append(interval_mark(frame, x, point.level, told))
    return Markup("").join(drawn)


def _name(frame: Frame, label: str, shift: float, end: float, height: float) -> Markup:
    right, shown = WIDTH - RIGHT, words.clipped(label, LONGEST)
    return Markup(
        '<line class="lead" x1="{:.1f}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
        '<text class="name" x="{}" y="{:.1f}">{}<title>{}</title></text>'
    ).format(
        frame.x(frame.last) + shift + 4, right + 16, end, height, right + 19, height + 3.5, shown, label
    )  # fmt: skip


def spaced(heights: Mapping[str, float], top: float, bottom: float) -> dict[str, float]:
    """Heights for labels that do not cover each other, as near to where they belong as a pass from the top allows.

    Example:
        >>> spaced({"a": 20.0, "b": 22.0}, 0.0, 100.0)
        {'a': 20.0, 'b': 34.0}
    """
    ordered = sorted(heights, key=lambda label: heights[label])
    placed: dict[str, float] = {}
    lowest = top - LINE_HEIGHT
    for label in ordered:
        lowest = placed[label] = max(heights[label], lowest + LINE_HEIGHT)
    over = bottom
    for label in reversed(ordered):
        placed[label] = min(placed[label], over)
        over = placed[label] - LINE_HEIGHT
    return placed


def split(cost: Cost, longest: float) -> Markup:
    """A run's seconds as a stacked bar, as long as its share of the longest run."""
    parts, start = [], 0.0
    for index, (field, name) in enumerate(PARTS.items()):
        seconds = float(getattr(cost, field))
        width = 100 * seconds / longest if longest else 0.0
        parts.append(
            Markup('<rect class="p{}" x="{:.2f}" width="{:.2f}" height="8"><title>{}</title></rect>').format(
                index, start, width, f"{name}: {words.seconds(seconds)}"
            )
        )
        start += width
    return Markup(
        '<svg class="split" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(f"seconds of {cost.label}", Markup("").join(parts))


def amount(units: float) -> str:
    """A number of forward-units, short.

    Example:
        >>> amount(0), amount(800), amount(12_500), amount(2_000_000)
        ('0', '800', '12.5k', '2M')
    """
    for size, name in ((1e6, "M"), (1e3, "k")):
        if units >= size:
            return f"{units / size:g}{name}"
    return f"{units:g}"


def _shifts(labels: Sequence[str]) -> dict[str, float]:
    """How far aside each entry's intervals stand, so that they do not cover each other."""
    step = min(DODGE, WIDEST / max(1, len(labels) - 1))
    return {label: (index - (len(labels) - 1) / 2) * step for index, label in enumerate(labels)}


def _level(value: float, rate: bool) -> str:
    text = f"{100 * value:g}\N{NO-BREAK SPACE}%" if rate else f"{value:g}"
    return text.replace("-", "\N{MINUS SIGN}")
