"""The frame of a line chart: where numbers lie in the picture, and axes whose labels do not meet."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

DIGIT = 6.7
"""Width of a digit of a label, in the largest size that the style sheet sets it in."""
GAP = 8.0
"""Between two labels of the horizontal axis."""
BELOW = 15.0
"""From the field down to the foot of the labels below it."""

Marks = Sequence[tuple[float, str]]
"""Places on an axis with their labels."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A field of a picture, its edges in pixels, and the numbers that lie at them; `low` lies at the bottom."""

    left: float
    right: float
    top: float
    bottom: float
    first: float
    last: float
    low: float
    high: float

    def x(self, at: float) -> float:
        """Pixels from the picture's left."""
        across = (at - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return self.left + across * (self.right - self.left)

    def y(self, value: float) -> float:
        """Pixels from the picture's top; what lies above or below the field is drawn on its edge."""
        inside = min(max(value, self.low), self.high)
        return self.top + (self.high - inside) / (self.high - self.low) * (self.bottom - self.top)


def limits(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and highest value with some air between them and the edges; from 0 where that is near.

    Example:
        >>> limits([0.02, 1.0]), limits([3.0])
        ((0.0, 1.049), (2.7, 3.3))
    """
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return 0.0 if 0 <= low <= margin else low - margin, high + margin


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


def along(frame: Frame, label: Callable[[float], str], width: int) -> list[tuple[float, str]]:
    """Marks of the horizontal axis, as many as leave room between their labels.

    Args:
        frame: the field above the axis.
        label: names a place, or nothing where no mark should stand.
        width: of the picture, which labels at the edges must not leave.
    """
    marks: list[tuple[float, str]] = []
    for most in (5, 4, 3, 2):
        marks = [(at, text) for at in ticks(frame.first, frame.last, most) if (text := label(at))]
        spans = [_span(frame.x(at), text, width) for at, text in marks]
        if all(end + GAP <= start for (_, end), (start, _) in pairwise(spans)):
            return marks
    return marks[:1]


def axes(frame: Frame, beside: Marks, below: Marks, name: str, width: int, height: int) -> Markup:
    """A line across the field for each mark beside it, labels, and a name below the horizontal axis.

    Args:
        frame: the field.
        beside: marks of the vertical axis.
        below: marks of the horizontal one, from `along`.
        name: of the horizontal axis.
        width: of the picture.
        height: of the picture.
    """
    line = Markup(
        '<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
        '<text class="tick end" x="{:.1f}" y="{:.1f}">{}</text>'
    )
    text = Markup('<text class="{} mid" x="{:.1f}" y="{:.1f}">{}</text>')
    lines = [
        line.format(frame.left, frame.right, y, y, frame.left - 6, y + 3.5, label)
        for y, label in ((frame.y(value), label) for value, label in beside)
    ]
    labels = [
        text.format("tick", sum(_span(frame.x(at), label, width)) / 2, frame.bottom + BELOW, label)
        for at, label in below
    ]
    return Markup("").join([*lines, *labels, text.format("axis", (frame.left + frame.right) / 2, height - 5, name)])


def svg(kind: str, width: int, height: int, label: str, parts: Iterable[Markup]) -> Markup:
    """A picture of its parts, with a label for screen readers."""
    opening = Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">')
    return Markup("").join([opening.format(kind, width, height, label), *parts, Markup("</svg>")])


def path(places: Iterable[tuple[float, float]], kind: str = "") -> Markup:
    """A line through places in pixels, of a class of the style sheet."""
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return Markup('<path class="{}" d="{}"/>').format(kind, line) if kind else Markup('<path d="{}"/>').format(line)


def interval_mark(frame: Frame, x: float, interval: tuple[float, float, float], title: str) -> Markup:
    """A dot at `x` pixels with its interval, which says what it is when it is pointed at."""
    return Markup(
        '<g class="at"><line class="span" x1="{0:.1f}" x2="{0:.1f}" y1="{2:.1f}" y2="{3:.1f}"/>'
        '<circle cx="{0:.1f}" cy="{1:.1f}" r="3"/><title>{4}</title></g>'
    ).format(x, *map(frame.y, interval), title)


def _span(x: float, text: str, width: int) -> tuple[float, float]:
    """Where a label around `x` begins and ends; at an edge of the picture it moves inside."""
    half = DIGIT * len(text) / 2
    middle = max(half, min(x, width - half))
    return middle - half, middle + half
