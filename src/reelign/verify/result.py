"""What a closed-form check claims, and what came out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Real = float | int
"""A number in a worked example; annotations are checked literally in tests, so whole numbers are named."""

Numbers = Real | Sequence[Real]


@dataclass(frozen=True, slots=True)
class Check:
    """A known number and the code that must reproduce it.

    Attributes:
        name: a claim in a few words.
        source: the equation or argument the expected number comes from.
        expected: one number or several.
        measure: calls the library and returns as many numbers.
        tolerance: largest accepted error, absolute for numbers below 1 and relative above.
    """

    name: str
    source: str
    expected: Numbers
    measure: Callable[[], Numbers]
    tolerance: float


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of one check of a group.

    ``measured`` is empty if the library raised, and ``error`` then says why.
    """

    name: str
    group: str
    source: str
    expected: tuple[float, ...]
    measured: tuple[float, ...]
    tolerance: float
    passed: bool
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON; numbers that JSON cannot hold become None."""
        fields = asdict(self)
        for key in ("expected", "measured"):
            fields[key] = [value if math.isfinite(value) else None for value in fields[key]]
        return fields


def judge(group: str, check: Check) -> Result:
    """Run one check; an error inside the library is a failed check, not the end of the suite."""
    expected = _as_tuple(check.expected)
    try:
        measured, error = _as_tuple(check.measure()), None
    except (ValueError, TypeError, RuntimeError, ArithmeticError, IndexError) as problem:
        measured, error = (), f"{type(problem).__name__}: {problem}"
    passed = len(measured) == len(expected) and all(
        distance(e, m) <= check.tolerance for e, m in zip(expected, measured, strict=True)
    )
    return Result(check.name, group, check.source, expected, measured, check.tolerance, passed, error)


def distance(expected: float, measured: float) -> float:
    """Absolute error below 1, relative error above; infinite for NaN."""
    error = abs(measured - expected) / max(1.0, abs(expected))
    return error if math.isfinite(error) else math.inf


def refused(name: str, source: str, action: Callable[[], object]) -> Check:
    """The check that an action is refused with a ValueError, which counts as 1."""

    def measure() -> float:
        try:
            action()
        except ValueError:
            return 1.0
        return 0.0

    return Check(name, source, 1, measure, 0.0)


def _as_tuple(numbers: Numbers) -> tuple[float, ...]:
    return (float(numbers),) if isinstance(numbers, int | float) else tuple(float(number) for number in numbers)
