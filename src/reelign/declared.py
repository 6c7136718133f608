"""What a reward or a metric says of itself, read once when it is built: it cannot change while a run goes on."""

import hashlib
import inspect
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from reprlib import Repr
from types import ModuleType
from typing import Any, Literal

Kind = Literal["reward", "metric"]
WANTED: dict[Kind, dict[str, str]] = {
    "reward": {"names": "of its scores", "range": "their scale, (low, high)", "version": "text that changes with them"},
    "metric": {"higher_is_better": "true or false by measure", "description": "what each measure is"},
}
LONGEST_NAME = 80
SHORT = Repr()
SHORT.maxstring = SHORT.maxother = 120
_ANY = (-float("inf"), float("inf"))


@dataclass(frozen=True, slots=True)
class Declared:
    """What a judge declares."""

    names: tuple[str, ...]
    """Of its scores or measures."""
    scale: tuple[float, float]
    """Of every score; that of measures has no ends."""
    higher_is_better: Mapping[str, bool]
    """By name."""
    description: Mapping[str, str]
    """By name; a reward gives none."""
    version: str
    """Changes whenever the same video could get another number; of a metric that declares none it is a digest of the
    files of its module and its class; empty where there are none."""


def read(kind: Kind, part: Any, module: ModuleType) -> Declared:
    """What a part of which `problem` finds none declares; `module` is the one that built it."""
    if kind == "reward":
        names, (low, high) = tuple(part.names), part.range
        return Declared(names, (float(low), float(high)), dict.fromkeys(names, True), {}, part.version)
    names, version = tuple(part.higher_is_better), getattr(part, "version", None)
    if version is None:
        version = _digest(tuple(sorted({source(part), getattr(module, "__file__", None) or ""})))
    return Declared(names, _ANY, dict(part.higher_is_better), dict(part.description), version)


def source(part: Any) -> str:
    """The file of a part's code; nothing where it has none that can be found."""
    try:
        return inspect.getsourcefile(part if inspect.isroutine(part) else type(part)) or ""
    except (TypeError, OSError):  # built in, or of a module that is no file, as in a notebook
        return ""


@cache
def _digest(files: tuple[str, ...]) -> str:
    """Of files as they were first asked for: code that is loaded stays as it is, whatever becomes of its file."""
    try:
        content = b"".join(Path(file).read_bytes() for file in files if file)
    except OSError:
        return ""
    return hashlib.sha256(content).hexdigest()[:12] if content else ""


def problem(kind: Kind, part: Any) -> str | None:
    """What keeps a built part from being a judge of that kind, to go on a sentence with; None if nothing does."""
    missing = [name for name in WANTED[kind] if not hasattr(part, name)]
    other: Kind = "metric" if kind == "reward" else "reward"
    if missing and all(hasattr(part, name) for name in WANTED[other]):
        return f"is a {other}, not a {kind}"
    if missing:
        return f"has no {' and no '.join(missing)}"
    if not callable(part):
        return "cannot be called"
    names = part.names if kind == "reward" else part.higher_is_better
    wanted = list | tuple if kind == "reward" else Mapping
    if not isinstance(names, wanted) or not names or len(set(names)) < len(names):
        return f"declares {'names' if kind == 'reward' else 'higher_is_better'} as {SHORT.repr(names)}"
    wrong = next((name for name in names if not _is_name(name)), None)
    if wrong is not None:
        return (
            f"calls a score {SHORT.repr(wrong)}, but names are printable text of at most {LONGEST_NAME} letters "
            "without '/', which has a meaning of its own"
        )
    return _reward_problem(part) if kind == "reward" else _metric_problem(part)


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        return False
    return name.isprintable() and name == name.strip() and "/" not in name


def _reward_problem(part: Any) -> str | None:
    scale = part.range
    numeric = isinstance(scale, list | tuple) and len(scale) == 2 and all(isinstance(v, numbers.Real) for v in scale)
    if not numeric or not scale[0] < scale[1]:
        return f"declares the range {SHORT.repr(scale)}"
    return (
        None if isinstance(part.version, str) else f"declares the version {SHORT.repr(part.version)}, which is no text"
    )


def _metric_problem(part: Any) -> str | None:
    if not isinstance(getattr(part, "version", ""), str | None):
        return f"declares the version {SHORT.repr(part.version)}, which is no text"
    if not all(isinstance(better, bool) for better in part.higher_is_better.values()):
        return f"declares higher_is_better as {SHORT.repr(part.higher_is_better)}"
    described = isinstance(part.description, Mapping) and set(part.description) == set(part.higher_is_better)
    if not described or not all(isinstance(text, str) for text in part.description.values()):
        return "does not describe each of its measures"
    return None
