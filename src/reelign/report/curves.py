"""Training curves and interval marks as inline SVG: no script, no style attribute, so that a strict CSP holds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from reelign.report import words
from reelign.report.load import Run

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 12, 36
MOST_BANDS = 120
"""Hover targets of one chart; more would only overlap, and each costs 150 bytes."""
WINDOW = 15
"""The bold line looks at one such part of the steps at a time."""

KNOWN = {
    "offline/accuracy": ("pair accuracy", "share of pairs whose preferred clip the policy favours over the reference"),
    "offline/margin": ("margin", "implicit reward of the preferred clip minus that of the other"),
    "online/max_abs_log_ratio": ("largest log-ratio", "magnitude; 0 before a batch's first update"),
    "online/idle_groups": ("idle groups", "share of prompts whose clips all got the same reward and teach nothing"),
    "online/reference_kl": ("divergence from the reference", "per transition"),
    "online/k3": (
        "divergence from the sampling policy",
        "estimate k3: mean of ratio \N{MINUS SIGN} 1 \N{MINUS SIGN} log ratio",
    ),
    "online/ess": ("effective sample size", "share of the batch"),
    "online/reward": ("reward", "weighted sum of the rewards, mean over the batch"),
    "online/clip_frac": ("clipped", "share of policy ratios outside the trust region"),
    "online/ratio_max_dev": ("largest ratio deviation", "largest |policy ratio \N{MINUS SIGN} 1| in the batch"),
    "online/grad_norm": ("gradient norm", "before clipping"),
    "online/step_kl": ("step KL", "divergence from the reference, per transition"),
    "offline/loss": ("loss", "mean over the batch"),
    "offline/grad_norm": ("gradient norm", "before clipping"),
    "rollout/wall_s": ("sampling time", "wall-clock time of one rollout"),
}
"""Short names and explanations of the quantities that every run writes; others go by their own names."""
ASIDE = (
    "ratio_mean", "ratio_std", "below_one", "clip_frac_positive", "clip_frac_negative", "chi2", "ess", "abs_log_ratio",
    "updated", "winner_error", "loser_error", "wall_s",
)  # fmt: skip
"""Endings of quantities that matter when something is wrong; the page folds them away."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One quantity of one stage; `skipped` counts values that are not finite and could not be drawn.

    `aside` charts matter when something is wrong.
    """

    quantity: str
    name: str
    explanation: str
    svg: Markup
    skipped: int
    aside: bool


def unit(quantity: str) -> str:
    """The unit that a quantity's name states, or nothing.

    Example:
        >>> unit("rollout/wall_s"), unit("online/clip_frac"), unit("online/reward")
        ('s', 'share', '')
    """
    endings = {"_s": "s", "_frac": "share", "_gib": "GiB", "kl": "nats"}
    return next((name for ending, name in endings.items() if quantity.endswith(ending)), "")


def charts(run: Run, stage: str) -> tuple[Chart, ...]:
    """A chart for each quantity of a stage, rewards first, in the order in which the run wrote them."""
    points: dict[str, list[tuple[int, float]]] = {}
    for row in run.metrics:
        if row.stage == stage:
            for quantity, value in row.values.items():
                points.setdefault(quantity, []).append((row.step, value))
    ordered = sorted(points, key=lambda quantity: not quantity.startswith("online/reward"))
    found = []
    for quantity in ordered:
        finite = [(step, value) for step, value in points[quantity] if math.isfinite(value)]
        if finite:
            name, explanation = _described(quantity)
            svg = line_chart(finite, name=name, unit=unit(quantity))
            skipped = len(points[quantity]) - len(finite)
            aside = quantity.rpartition("/")[2] in ASIDE
            found.append(Chart(quantity, name, explanation, svg, skipped, aside))
    return tuple(found)


def smoothed(values: Sequence[float]) -> list[float]:
    """Running line fit: each value becomes that of the least-squares line through its neighbours.

    In the middle this is the running mean; at both ends it neither lags behind a trend nor chases noise.

    Example:
        >>> [round(v, 6) for v in smoothed([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])]
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    half = max(len(values) // WINDOW // 2, 2)
    size = min(2 * half + 1, len(values))
    fitted = []
    for index in range(len(values)):
        start = min(max(index - half, 0), len(values) - size)
        window = values[start : start + size]
        centre, mean = (len(window) - 1) / 2, sum(window) / len(window)
        spread = sum((k - centre) ** 2 for k in range(len(window)))
        slope = sum((k - centre) * v for k, v in enumerate(window)) / spread if spread else 0.0
        fitted.append(mean + slope * (index - start - centre))
    return fitted


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


def line_chart(points: Sequence[tuple[int, float]], *, name: str, unit: str = "") -> Markup:
    """Raw values as a thin line, a running line fit as a bold one; hovering names step and value.

    Args:
        points: (step, value), finite, at least one.
        name: of the quantity, for the vertical axis and for screen readers.
        unit: shown behind the name.
    """
    steps = [float(step) for step, _ in points]
    values = [value for _, value in points]
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = (0.0 if 0 <= low <= margin else low - margin), high + margin
    first, last = min(steps), max(steps)

    def x(step: float) -> float:
        across = (step - first) / (last - first) if last > first else 0.5
        return LEFT + across * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    label = f"{name} ({unit})" if unit else name
    summary = f"{label} by step: starts at {words.number(values[0])}, ends at {words.number(values[-1])}"
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, summary)
    ]
    parts += [
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
            '<text class="tick end" x="{}" y="{:.1f}">{}</text>'
        ).format(LEFT, WIDTH - RIGHT, y(tick), y(tick), LEFT - 6, y(tick) + 3.5, _tick(tick))
        for tick in ticks(low, high, 4)
    ]  # fmt: skip
    parts += [
        Markup('<text class="tick mid" x="{:.1f}" y="{}">{:.0f}</text>').format(x(tick), HEIGHT - BOTTOM + 14, tick)
        for tick in ticks(first, last, 6)
        if tick == int(tick)
    ]
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts += [
        Markup('<text class="axis mid" x="{}" y="{}">step</text>').format((WIDTH + LEFT - RIGHT) / 2, HEIGHT - 6),
        Markup('<text class="axis mid" transform="translate(9 {}) rotate(-90)">{}</text>').format(middle, label),
        Markup('<path class="raw" d="{}"/>').format(_path([x(s) for s in steps], [y(v) for v in values])),
        Markup('<path class="smooth" d="{}"/>').format(_path([x(s) for s in steps], [y(v) for v in smoothed(values)])),
    ]
    if len(points) == 1:
        parts.append(Markup('<circle class="only" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(x(steps[0]), y(values[0])))
    every = math.ceil(len(points) / MOST_BANDS)
    shown = list(zip(steps, values, strict=True))[::every]
    band = (WIDTH - LEFT - RIGHT) / len(shown)
    behind = f" {unit}" if unit else ""
    parts += [
        Markup(
            '<g class="at"><rect x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>'
            '<circle cx="{:.1f}" cy="{:.1f}" r="3"/><title>step {:.0f}: {}{}</title></g>'
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


def _described(quantity: str) -> tuple[str, str]:
    if quantity in KNOWN:
        return KNOWN[quantity]
    if quantity.startswith("online/reward/"):
        return (
            f"reward: {words.plain(quantity.removeprefix('online/reward/'))}",
            "mean over the batch, before weighting",
        )
    if quantity.startswith("online/spread/"):
        name = words.plain(quantity.removeprefix("online/spread/"))
        return f"spread: {name}", "standard deviation within a prompt's group; at 0 there is nothing to learn from"
    if quantity.endswith("/wall_s"):
        return f"{words.plain(quantity.partition('/')[0])} time", "wall-clock time of one step"
    return words.plain(quantity.partition("/")[2] or quantity), ""


def _tick(value: float) -> str:
    text = f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _path(xs: Sequence[float], ys: Sequence[float]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
