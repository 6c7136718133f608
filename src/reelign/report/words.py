"""Names and numbers as a reader sees them."""

import math

_LONGEST_ACRONYM = 4
_RIGHT = ("right", "correct", "ok", "followed", "stable")
PROMPT_SHOWN = 400
"""Characters of a prompt that the page shows; the run folder has all of it."""


def title(name: str) -> str:
    """A stage's or method's name for people.

    Example:
        >>> title("sft"), title("flash_grpo"), title("base")
        ('SFT', 'Flash GRPO', 'Base')
    """
    known = ("base", "mix", "max", "self", "loss", "time", "rate", "wall", "grad", "norm", "step", "clip")
    parts = [
        part.upper() if part.isalpha() and len(part) <= _LONGEST_ACRONYM and part not in known else part
        for part in name.replace("-", "_").split("_")
    ]
    text = " ".join(part for part in parts if part)
    return text[:1].upper() + text[1:]


def plain(name: str) -> str:
    """A measure's or quantity's name as words.

    Example:
        >>> plain("attributes_right"), plain("fidelity_db")
        ('attributes right', 'fidelity (dB)')
    """
    if name.endswith("_db"):
        name = name.removesuffix("_db") + " (dB)"
    return name.replace("_", " ").replace("/", " · ").strip()


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
    if stem.endswith("s") and not stem.endswith(("ss", "ics", "us", "is")):
        stem = stem[:-1]
    return f"{plain(stem)} failures"


def _significant(value: float) -> str:
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e5 or size < 1e-3:
        mantissa, exponent = f"{size:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{size:.{max(0, 2 - math.floor(math.log10(size)))}f}"


def number(value: float | None, rate: bool = False) -> str:
    r"""A value: shares in percent, others with three significant digits.

    Example:
        >>> number(0.6241, rate=True), number(0.0312, rate=True), number(-0.5), number(None)
        ('62\xa0%', '3.1\xa0%', '−0.500', '–')
    """
    if value is None:
        return "\N{EN DASH}"
    if not math.isfinite(value):
        return str(value)
    sign = "\N{MINUS SIGN}" if value < 0 else ""
    return f"{sign}{_percent(abs(value))}\N{NO-BREAK SPACE}%" if rate else sign + _significant(value)


def _percent(share: float) -> str:
    text = f"{100 * share:.1f}"
    return text.removesuffix(".0") if float(text) < 10 else f"{100 * share:.0f}"


def signed(value: float, rate: bool = False) -> str:
    """A difference with its sign; differences of shares are in percentage points, without a unit."""
    size = _percent(abs(value)) if rate else _significant(value)
    if float(size) == 0:
        return size
    return ("+" if value > 0 else "\N{MINUS SIGN}") + size


def limits(low: float, high: float, rate: bool = False, difference: bool = False) -> str:
    """An interval in brackets, in the unit of its number."""
    if difference:
        return f"[{signed(low, rate)}, {signed(high, rate)}]"
    if rate:
        return f"[{_percent(low)}, {_percent(high)}]"
    return f"[{number(low)}, {number(high)}]"


def seconds(value: float | None) -> str:
    r"""A duration.

    Example:
        >>> seconds(81.2), seconds(7260.0), seconds(0.4)
        ('1\xa0min 21\xa0s', '2\xa0h 1\xa0min', '0.4\xa0s')
    """
    if value is None:
        return "\N{EN DASH}"
    whole = round(value)
    if whole >= 3600:
        return f"{whole // 3600}\N{NO-BREAK SPACE}h {whole % 3600 // 60}\N{NO-BREAK SPACE}min"
    if whole >= 60:
        return f"{whole // 60}\N{NO-BREAK SPACE}min {whole % 60}\N{NO-BREAK SPACE}s"
    return f"{value:.1f}".removesuffix(".0") + "\N{NO-BREAK SPACE}s"


def join(items: list[str]) -> str:
    """Items as a clause.

    Example:
        >>> join(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def shortened(prompt: str) -> str:
    """A prompt short enough to show, with control characters made harmless.

    Direction overrides stay: the page isolates every prompt.
    """
    text = prompt[: PROMPT_SHOWN + 1]
    if len(prompt) > PROMPT_SHOWN:
        text = f"{prompt[:PROMPT_SHOWN]}\N{HORIZONTAL ELLIPSIS} ({len(prompt):,} characters)"
    return "".join(c if c.isprintable() or ord(c) > 127 else " " for c in text)
