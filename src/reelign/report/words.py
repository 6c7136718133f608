"""Names and numbers as a reader sees them, and whether a reader can tell two of them apart."""

import math
from collections.abc import Mapping
from typing import Any

_ACRONYMS = (
    "sft", "dpo", "ppo", "grpo", "dgpo", "pcpo", "dppo", "cps", "nft", "awm", "crd", "rwr", "bpgo", "vipo", "taros",
    "rl", "kl", "lora", "ema",
)  # fmt: skip
_RIGHT = ("right", "correct", "ok", "followed", "stable")
_ONE = ("ss", "ics", "us", "is")
"""Endings in s that are no plural."""
PROMPT_SHOWN = 400
"""Characters of a prompt that the page shows; the run folder has all of it."""
NAME_SHOWN = 80
"""Characters of a name."""
DIGITS = 3
"""Significant digits of a score."""


def title(name: str) -> str:
    """A stage's or method's name for people.

    Example:
        >>> title("sft"), title("flash_grpo"), title("base"), title("cool-down")
        ('SFT', 'Flash GRPO', 'Base', 'Cool down')
    """
    parts = [part.upper() if part in _ACRONYMS else part for part in name.replace("-", "_").split("_")]
    text = clipped(" ".join(part for part in parts if part))
    return text[:1].upper() + text[1:]


def plain(name: str) -> str:
    """A measure's or quantity's name as words.

    Example:
        >>> plain("attributes_right"), plain("fidelity_db")
        ('attributes right', 'fidelity (dB)')
    """
    if name.endswith("_db"):
        name = name.removesuffix("_db") + " (dB)"
    return clipped(name.replace("_", " ").replace("/", " · ").strip())


def where(name: str) -> str:
    """The clips that a gate looked at: a slice, or all.

    Example:
        >>> where("color=red"), where("all")
        ('color red', 'all clips')
    """
    return "all clips" if name == "all" else plain(name.replace("=", " ", 1))


def sampled(sampler: Mapping[str, Any]) -> str:
    """How clips were sampled, as a title.

    Example:
        >>> sampled({"steps": 16, "guidance": 3.0, "shift": 3.0}), sampled({})
        ('16 steps, guidance 3', 'unknown settings')
    """
    steps, guidance = sampler.get("steps"), sampler.get("guidance")
    told = [count(steps, "step")] if isinstance(steps, int) else []
    told += [f"guidance {guidance:g}"] if isinstance(guidance, int | float) else []
    return ", ".join(told) or "unknown settings"


def count(n: int, noun: str) -> str:
    """How many of something.

    Example:
        >>> count(1, "step"), count(0, "pair"), count(3840, "rollout")
        ('1 step', '0 pairs', '3,840 rollouts')
    """
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def badge(name: str, right: bool | None, higher_is_better: bool = True) -> str:
    """What stands beside a clip's mark: the thing judged, without the judgement.

    Example:
        >>> badge("motion_right", True), badge("violation", True, higher_is_better=False)
        ('motion', 'no violation')
    """
    if right and not higher_is_better:
        return f"no {plain(name)}"
    stem, _, ending = name.rpartition("_")
    if stem and ending == "free":
        return f"no {plain(stem)}" if right else plain(stem)
    return plain(stem if stem and ending in _RIGHT else name)


def failures(name: str) -> str | None:
    """What the opposite of a share counts, where its name says what is right.

    Example:
        >>> failures("attributes_right"), failures("physics_ok"), failures("symbol_free"), failures("diversity")
        ('attribute failures', 'physics failures', 'clips with symbol', None)
    """
    stem, _, ending = name.rpartition("_")
    if stem and ending == "free":
        return f"clips with {plain(stem)}"
    if ending not in _RIGHT or not stem:
        return None
    return f"{plain(stem if stem.endswith(_ONE) else stem.removesuffix('s'))} failures"


def number(value: float | None, rate: bool = False, like: float | None = None) -> str:
    r"""A value: shares in percent, others with three significant digits, or as many decimals as `like` has.

    Example:
        >>> number(0.6241, rate=True), number(0.0312, rate=True), number(-0.5), number(None), number(0.1, like=0.0404)
        ('62\xa0%', '3.1\xa0%', '−0.500', '–', '0.1000')
    """
    if value is None:
        return "\N{EN DASH}"
    if not math.isfinite(value):
        return _without_end(value)
    if rate:
        return _minus(value) + _percent(abs(value)) + "\N{NO-BREAK SPACE}%"
    return _minus(value) + _significant(value, None if like is None else _decimals(like))


def signed(value: float, rate: bool = False, like: float | None = None) -> str:
    """A difference with its sign; differences of shares are in percentage points, without a unit.

    `like` is a level that it is a difference of; it then has one decimal more than that.

    Example:
        >>> signed(0.0065), signed(0.0065, like=0.494), signed(-0.2, rate=True)
        ('+0.00650', '+0.0065', '−20')
    """
    if not math.isfinite(value):
        return ("+" if value > 0 else "") + _without_end(value)
    decimals = None if like is None else _decimals(like)
    size = _percent(abs(value)) if rate else _significant(value, None if decimals is None else decimals + 1)
    if float(size) == 0:
        return "0"
    return ("+" if value > 0 else "\N{MINUS SIGN}") + size


def limits(low: float, high: float, rate: bool = False, like: float | None = None) -> str:
    """An interval of a level in brackets, in the unit of its number, and with the decimals of `like`."""
    if rate and math.isfinite(low) and math.isfinite(high):
        return f"[{_percent(low)}, {_percent(high)}]"
    return f"[{number(low, like=like)}, {number(high, like=like)}]"


def signed_limits(low: float, high: float, rate: bool = False, like: float | None = None) -> str:
    """An interval of a difference in brackets; see `signed`."""
    return f"[{signed(low, rate, like)}, {signed(high, rate, like)}]"


def differ(before: float, after: float, rate: bool = False) -> bool:
    """Whether a reader can tell two levels apart: they print differently, and not only because one was rounded up.

    Example:
        >>> differ(0.0404, 0.0404002), differ(0.040449, 0.040451), differ(0.0404, 0.0406)
        (False, False, True)
    """
    if number(before, rate) == number(after, rate):
        return False
    if not math.isfinite(after - before):
        return True
    return abs(after - before) >= max(_last_digit(before, rate), _last_digit(after, rate)) * (1 - 1e-9)


def seconds(value: float | None) -> str:
    r"""A duration.

    Example:
        >>> seconds(81.2), seconds(7260.0), seconds(0.4), seconds(200000.0)
        ('1\xa0min 21\xa0s', '2\xa0h 1\xa0min', '0.4\xa0s', '2\xa0d 7\xa0h')
    """
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    whole = round(value)
    for size, name, part, of in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size}\N{NO-BREAK SPACE}{name} {whole % size // part}\N{NO-BREAK SPACE}{of}"
    return f"{value:.1f}".removesuffix(".0") + "\N{NO-BREAK SPACE}s"


def join(items: list[str]) -> str:
    """Items as a clause.

    Example:
        >>> join(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def sentence(text: str) -> str:
    """Text that starts with a capital and ends with a full stop.

    Example:
        >>> sentence("no gain"), sentence("")
        ('No gain.', '')
    """
    text = text.strip()
    return text if not text else text[:1].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def clipped(text: str, most: int = NAME_SHOWN) -> str:
    """A text no longer than `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def shortened(prompt: str) -> str:
    """A prompt short enough to show, with control characters made harmless.

    Direction overrides stay: the page isolates every prompt.
    """
    text = prompt[: PROMPT_SHOWN + 1]
    if len(prompt) > PROMPT_SHOWN:
        text = f"{prompt[:PROMPT_SHOWN]}\N{HORIZONTAL ELLIPSIS} ({len(prompt):,} characters)"
    return "".join(c if c.isprintable() or ord(c) > 127 else " " for c in text)


def _minus(value: float) -> str:
    return "\N{MINUS SIGN}" if value < 0 else ""


def _without_end(value: float) -> str:
    return "not a number" if math.isnan(value) else _minus(value) + "\N{INFINITY}"


def _decimals(value: float) -> int | None:
    """Decimals of a score; None where it is written with an exponent."""
    size = abs(value)
    if size == 0:
        return 0
    if not 1e-3 <= size < 1e5:
        return None
    return max(0, DIGITS - 1 - math.floor(math.log10(size)))


def _significant(value: float, decimals: int | None = None) -> str:
    size = abs(value)
    if decimals is not None and size < 1e5:
        return f"{size:.{decimals}f}"
    if size == 0:
        return "0"
    own = _decimals(size)
    if own is not None:
        return f"{size:.{own}f}"
    mantissa, exponent = f"{size:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _percent(share: float) -> str:
    text = f"{100 * share:.1f}"
    return text.removesuffix(".0") if float(text) < 10 else f"{100 * share:.0f}"


def _last_digit(value: float, rate: bool) -> float:
    """What one more in the last printed digit is worth."""
    if rate:
        return 0.001 if round(100 * abs(value), 1) < 10 else 0.01
    if value == 0:
        return 0.0
    decimals = _decimals(value)
    return 10.0 ** (math.floor(math.log10(abs(value))) - 1 if decimals is None else -decimals)
