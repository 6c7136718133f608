"""Training curves and interval marks as inline SVG: no script, no style attribute, so that a strict CSP holds.

A curve costs the same whatever its length: of a long one the lowest and the highest value of each part are drawn, so
that peaks stay, and its fit at as many places as the picture has pixels.
"""

import math
from collections.abc import Sequence

import torch
from markupsafe import Markup

from reelign.report import words

WIDTH, HEIGHT = 360, 176
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 10, 34
DIGIT = 6.7
"""Width of a digit of a tick."""
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


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two limits, at most `most` of them when the limits are apart.

    Example:
        >>> ticks(0.13, 0.92)
        [0.2, 0.4, 0.6, 0.8]
    """
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]


def line_chart(points: Points, *, name: str, unit: str = "") -> Markup:
    """Raw values as a thin line, a running line fit as a bold one; hovering names step and value.

    Args:
        points: (step, value), finite, at least one.
        name: of the quantity, for screen readers.
        unit: shown behind values.
    """
    values = [value for _, value in points]
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = (0.0 if 0 <= low <= margin else low - margin), high + margin
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    marks = [(tick, _tick(tick)) for tick in ticks(low, high, 4)]
    left = max(LEFT, 10 + DIGIT * max((len(text) for _, text in marks), default=0))

    def x(step: float) -> float:
        across = (step - first) / (last - first) if last > first else 0.5
        return left + across * (WIDTH - left - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def path(line: Points) -> str:
        return "M" + "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in line)

    label = f"{name} ({unit})" if unit else name
    summary = f"{label} by step: starts at {words.number(values[0])}, ends at {words.number(values[-1])}"
    raw = path(thinned(points))
    fitted = [(step, value) for (step, _), value in zip(points, smoothed(values), strict=True)]
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, summary)
    ]
    parts += [
        Markup(
            '<line class="grid" x1="{:.1f}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
            '<text class="tick end" x="{:.1f}" y="{:.1f}">{}</text>'
        ).format(left, WIDTH - RIGHT, y(tick), y(tick), left - 6, y(tick) + 3.5, text)
        for tick, text in marks
    ]  # fmt: skip
    parts += [
        Markup('<text class="tick mid" x="{:.1f}" y="{}">{:,.0f}</text>').format(x(tick), HEIGHT - BOTTOM + 14, tick)
        for tick in ticks(first, last, 5)
        if tick == int(tick)
    ]
    parts += [
        Markup('<text class="axis mid" x="{:.1f}" y="{}">step</text>').format((WIDTH + left - RIGHT) / 2, HEIGHT - 5),
        Markup('<path class="{}" d="{}"/>').format("raw" if len(points) <= MOST_FITTED else "raw dense", raw),
        Markup('<path class="smooth" d="{}"/>').format(path(_spread_out(fitted, MOST_FITTED))),
    ]
    if len(points) == 1:
        parts.append(Markup('<circle class="only" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(x(first), y(values[0])))
    shown = _spread_out(points, MOST_BANDS)
    band = (WIDTH - left - RIGHT) / len(shown)
    behind = f" {unit}" if unit else ""
    parts += [
        Markup(
            '<g class="at"><rect x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>'
            '<circle cx="{:.1f}" cy="{:.1f}" r="3"/><title>step {:,.0f}: {}{}</title></g>'
        ).format(
            x(step) - band / 2, TOP, band, HEIGHT - TOP - BOTTOM, x(step), y(value), step, words.number(value), behind
        )
        for step, value in shown
    ]  # fmt: skip
    return Markup("").join([*parts, Markup("</svg>")])


def whisker(mean: float, low: float, high: float, *, limits: tuple[float, float], reference: float | None) -> Markup:
    """A dot with its interval on a scale, and a mark where the base stands.

    Args:
        mean: the dot.
        low: left end of the interval.
        high: right end of the interval.
        limits: ends of the scale.
        reference: where the base stands, if anywhere.
    """
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


def _tick(value: float) -> str:
    text = f"{value:g}"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.5e}".split("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    return text.replace("-", "\N{MINUS SIGN}")
