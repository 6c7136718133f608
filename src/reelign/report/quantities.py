"""What a step reports, with a name, an explanation and a curve for each quantity."""

import math
from dataclasses import dataclass

from markupsafe import Markup

from reelign.report import curves, words
from reelign.report.run import Run
from reelign.report.series import Series

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
    "online/reward": ("reward", "weighted mean of the rewards, over the batch"),
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
MOST_CHARTS = 60
"""Curves of one stage on the page; the rest is in metrics.jsonl."""
LARGEST = 1e300
"""Beyond this a value is no more to be drawn than an infinite one."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One quantity of one stage; `skipped` counts values that are not finite and could not be drawn.

    `aside` charts matter when something is wrong.
    """

    quantity: str
    name: str
    unit: str
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


def charts(run: Run, stage: str) -> tuple[tuple[Chart, ...], int]:
    """A chart for each quantity of a stage, rewards first, in the order in which the run wrote them.

    Returns:
        the charts, and how many quantities there was no room for.
    """
    columns = run.metrics[stage]
    ordered = sorted(columns, key=lambda quantity: not quantity.startswith("online/reward"))
    drawn = [chart for quantity in ordered[:MOST_CHARTS] if (chart := _chart(quantity, columns[quantity]))]
    return tuple(drawn), max(0, len(ordered) - MOST_CHARTS)


def _chart(quantity: str, series: Series) -> Chart | None:
    """None where no value can be drawn."""
    points = [
        (float(step), value)
        for step, value in zip(series.steps, series.values, strict=True)
        if math.isfinite(value) and abs(value) <= LARGEST
    ]
    if not points:
        return None
    name, explanation = _described(quantity)
    svg = curves.line_chart(points, name=name, unit=unit(quantity))
    aside = quantity.rpartition("/")[2] in ASIDE
    return Chart(quantity, name, unit(quantity), explanation, svg, len(series.values) - len(points), aside)


def _described(quantity: str) -> tuple[str, str]:
    if quantity in KNOWN:
        return KNOWN[quantity]
    if quantity.startswith("online/reward/"):
        return f"reward: {words.plain(quantity.removeprefix('online/reward/'))}", "batch mean before weighting"
    if quantity.startswith("online/spread/"):
        name = words.plain(quantity.removeprefix("online/spread/"))
        return f"spread: {name}", "standard deviation within a prompt's group; at 0 there is nothing to learn from"
    if quantity.startswith("online/again/"):
        name, explanation = _described("online/" + quantity.removeprefix("online/again/"))
        return f"{name}, later updates", explanation
    if quantity.endswith("/wall_s"):
        return f"{words.plain(quantity.partition('/')[0])} time", "wall-clock time of one step"
    return words.plain(quantity.partition("/")[2] or quantity), ""
