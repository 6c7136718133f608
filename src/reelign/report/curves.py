"""Training curves and interval marks as inline SVG: no script, no style attribute, so that a strict CSP holds.

A curve costs the same whatever its length: of a long one the lowest and the highest value of each part are drawn, so
that peaks stay, and its fit at as many places as the picture has pixels.
"""

from collections.abc import Sequence

import torch
from markupsafe import Markup

from reelign.report import frame, words
from reelign.report.frame import DIGIT, Frame

WIDTH, HEIGHT = 360, 176
LEFT, RIGHT, TOP, BOTTOM = 50.0, 10.0, 10.0, 34.0
MOST_POINTS, MOST_FITTED, MOST_BANDS = 2000, 400, 120
"""Points of a curve's thin line, of its bold one, and hover targets: more of those would only overlap."""
WINDOW = 15
"""The bold line looks at one such part of the steps at a time."""

Points = Sequence[tuple[float, float]]
"""Steps with their values."""


def smoothed(values: Sequence[float]) -> list[float]:
    """Running line fit: each value becomes that of the least-squares line through its neighbours.

    In the middle this is the running mean; at both ends it neither lags behind a trend nor chases noise. It stays
    within the values' own range, so that a quantity that cannot be negative does not look so. Linear in the number of
    values.

    Example:
        >>> [round(v, 6) for v in smoothed([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])]
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        >>> min(smoothed([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
        0.0
    """
    given = torch.tensor(values, dtype=torch.float64)
    n, low, high = len(given), given.min(), given.max()
    middle, scale = (low + high) / 2, (high - low) / 2
    if n < 2 or not scale > 0:
        return given.tolist()
    half = max(n // WINDOW // 2, 2)
    size = min(2 * half + 1, n)
    index = torch.arange(n, dtype=torch.float64)
    start = (index - half).clamp(0, n - size)
    # Sums over a window are differences of running sums; of values in [-1, 1], so that nothing is lost in them.
    unit = (given - middle) / scale
    sums, moments = (torch.cat([x.new_zeros(1), x.cumsum(0)]) for x in (unit, index * unit))
    first = start.long()
    total, moment = (x[first + size] - x[first] for x in (sums, moments))
    slope = (moment - (start + (size - 1) / 2) * total) / (size * (size**2 - 1) / 12)
    fitted = total / size + slope * (index - start - (size - 1) / 2)
    return (middle + scale * fitted).clamp(low, high).tolist()


def thinned(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """The lowest and the highest point of each of `most / 2` equal parts, in order; all of them where they are few.

    Example:
        >>> thinned([(0.0, 1.0), (1.0, 9.0), (2.0, 0.0), (3.0, 5.0), (4.0, 6.0), (5.0, 4.0)], most=4)
        [(1.0, 9.0), (2.0, 0.0), (4.0, 6.0), (5.0, 4.0)]
    """
    n, parts = len(points), most // 2
    if n <= most:
        return list(points)
    kept = []
    for part in range(parts):
        places = range(part * n // parts, (part + 1) * n // parts)
        lowest, highest = (choose(places, key=lambda k: points[k][1]) for choose in (min, max))
        kept += [points[k] for k in sorted({lowest, highest})]
    return kept


def line_chart(points: Points, *, name: str, unit: str = "") -> Markup:
    """Raw values as a thin line, a running line fit as a bold one; hovering names step and value.

    Args:
        points: (step, value), finite, at least one.
        name: of the quantity, for screen readers.
        unit: shown behind values.
    """
    values = [value for _, value in points]
    low, high = frame.limits(values)
    beside = [(tick, _tick(tick)) for tick in frame.ticks(low, high, 4)]
    left = max(LEFT, 10 + DIGIT * max((len(text) for _, text in beside), default=0))
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    field = Frame(left, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM, first, last, low, high)
    label = f"{name} ({unit})" if unit else name
    summary = f"{label} by step: starts at {words.number(values[0])}, ends at {words.number(values[-1])}"
    fitted = [(step, value) for (step, _), value in zip(points, smoothed(values), strict=True)]
    drawn = [
        frame.axes(field, beside, frame.along(field, _step, WIDTH), "step", WIDTH, HEIGHT),
        _line("raw" if len(points) <= MOST_FITTED else "raw dense", thinned(points), field),
        _line("smooth", _spread_out(fitted, MOST_FITTED), field),
    ]
    if len(points) == 1:
        dot = Markup('<circle class="only" cx="{:.1f}" cy="{:.1f}" r="3"/>')
        drawn.append(dot.format(field.x(first), field.y(values[0])))
    return frame.svg("chart", WIDTH, HEIGHT, summary, [*drawn, *_hovers(points, field, unit)])


def level_chart(levels: Sequence[tuple[float, float, float, float]], *, name: str, rate: bool) -> Markup:
    """Levels with their intervals, joined by a line; pointing at one names it.

    Args:
        levels: (step, mean, low, high), finite, at least one.
        name: of the measure, for screen readers.
        rate: whether it is a share.
    """
    low, high = frame.limits([limit for _, *limits in levels for limit in limits])
    beside = [(tick, words.number(tick, rate) if rate else _tick(tick)) for tick in frame.ticks(low, high, 4)]
    field = Frame(LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM, levels[0][0], levels[-1][0], low, high)
    ends = words.number(levels[0][1], rate), words.number(levels[-1][1], rate)
    drawn = [
        frame.axes(field, beside, frame.along(field, _step, WIDTH), "step", WIDTH, HEIGHT),
        _line("smooth", [(step, mean) for step, mean, *_ in levels], field),
    ]
    for step, mean, below, above in levels:
        told = f"step {step:,.0f}: {words.number(mean, rate)} {words.limits(below, above, rate, mean)}"
        drawn.append(frame.interval_mark(field, field.x(step), (mean, below, above), told))
    label = f"{name} by step: starts at {ends[0]}, ends at {ends[1]}"
    return frame.svg("chart levels", WIDTH, HEIGHT, label, drawn)


def _line(kind: str, points: Points, field: Frame) -> Markup:
    return frame.path(((field.x(step), field.y(value)) for step, value in points), kind)


def _hovers(points: Points, field: Frame, unit: str) -> list[Markup]:
    """Bands that tell step and value of what they hold when they are pointed at."""
    shown, behind = _spread_out(points, MOST_BANDS), f" {unit}" if unit else ""
    width, height = (field.right - field.left) / len(shown), field.bottom - field.top
    band = Markup(
        '<g class="at"><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
        '<circle cx="{:.1f}" cy="{:.1f}" r="3"/><title>step {:,.0f}: {}{}</title></g>'
    )
    found = []
    for step, value in shown:
        x, y = field.x(step), field.y(value)
        start, end = max(field.left, x - width / 2), min(field.right, x + width / 2)
        told = step, words.number(value), behind
        found.append(band.format(start, field.top, end - start, height, x, y, *told))
    return found


def whisker(mean: float, low: float, high: float, *, limits: tuple[float, float], reference: float | None) -> Markup:
    """A dot with its interval on a scale with these `limits`, and a mark where the base stands, the `reference`."""
    left, right = limits

    def x(value: float) -> float:
        return 4 + 92 * ((value - left) / (right - left) if right > left else 0.5)

    mark = Markup("")
    if reference is not None:
        mark = Markup('<line class="was" x1="{0:.1f}" x2="{0:.1f}" y1="1" y2="11"/>').format(x(reference))
    return Markup(
        '<svg class="whisker" viewBox="0 0 100 12" preserveAspectRatio="xMinYMid" aria-hidden="true">'
        '<line class="scale" x1="4" x2="96" y1="6" y2="6"/>'
        '{}<line class="span" x1="{:.1f}" x2="{:.1f}" y1="6" y2="6"/><circle cx="{:.1f}" cy="6" r="3"/></svg>'
    ).format(mark, x(low), x(high), x(mean))


def bar(share: float) -> Markup:
    """A horizontal bar, `share` of 1 long."""
    width = 100 * min(max(share, 0.0), 1.0)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="scale" width="100" height="6"/><rect class="fill" width="{:.1f}" height="6"/></svg>'
    ).format(width)


def _spread_out(points: Points, most: int) -> list[tuple[float, float]]:
    """At most `most` points at equal distances, the first and the last among them."""
    n = len(points)
    return list(points) if n <= most else [points[round(k * (n - 1) / (most - 1))] for k in range(most)]


def _step(at: float) -> str:
    """A step is a whole number."""
    return f"{at:,.0f}" if at == int(at) else ""


def _tick(value: float) -> str:
    text = f"{value:g}"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.5e}".split("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    return text.replace("-", "\N{MINUS SIGN}")
