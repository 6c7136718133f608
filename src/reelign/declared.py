"""What a part says of itself before it is built: attributes of its `Config`, or properties where settings decide.

| kind | says | may say |
|---|---|---|
| reward | `scores`, `version` | `reads`, `check_requests` |
| metric | `higher_is_better`, `description` | `version`, `reads`, `check_requests` |
| dataset | `gives` | |
| method | `consumes` | `needs`, `check` |
| module | | `replaces` |

Asking costs nothing: no weights are loaded, no file is opened. What is built from the `Config` says none of it again.
"""

import hashlib
import inspect
import numbers
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from reelign.batches import Clips, Credited, Pairs
from reelign.errors import BadConfig, shown
from reelign.settings import PartConfig

Kind = Literal["reward", "metric"]
WANTED: dict[Kind, dict[str, str]] = {
    "reward": {"scores": "their scales, {name: (low, high)}", "version": "text that changes with them"},
    "metric": {"higher_is_better": "true or false by measure", "description": "what each measure is"},
}
LONGEST_NAME = 80
_ANY = (-float("inf"), float("inf"))
_DATA = frozenset({"prompts", "clips", "pairs"})
_NEEDS = frozenset({"reference", "sampled"})


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a reward or a metric says of itself."""

    scales: Mapping[str, tuple[float, float]]
    """By name of a score; that of a measure has no ends."""
    higher_is_better: Mapping[str, bool]
    """By name."""
    description: Mapping[str, str]
    """By name; a reward gives none."""
    version: str
    """Changes whenever the same video could get another number; of a metric that says none it is a digest of the files
    of its module, its `Config` and its `build`; empty where there are none."""
    reads: tuple[int, int, int] | None
    """Frames, height and width of the only videos that it reads; None where it reads any."""


def read(kind: Kind, config: PartConfig, *code: object) -> Declaration:
    """What the `Config` of a part says of which `problem` finds none; `code` is what builds the part."""
    own: Any = config
    reads = getattr(own, "reads", None)
    if kind == "reward":
        scales = {name: (float(low), float(high)) for name, (low, high) in own.scores.items()}
        return Declaration(scales, dict.fromkeys(scales, True), {}, own.version, reads)
    better, version = dict(own.higher_is_better), getattr(own, "version", None)
    if version is None:
        version = _digest(tuple(sorted({source(each) for each in (type(own), *code)})))
    return Declaration(dict.fromkeys(better, _ANY), better, dict(own.description), version, reads)


def gives(config: PartConfig) -> frozenset[str]:
    """Of {"prompts", "clips", "pairs"} what a dataset gives.

    Raises:
        BadConfig: it does not say.
    """
    found = getattr(config, "gives", None)
    if not _is_set(found) or not found or not set(found) <= _DATA:
        raise BadConfig(
            f"the dataset {shown(config.name)} does not say what it gives; let `gives` of its Config be a set of some "
            "of prompts, clips and pairs."
        )
    return frozenset(found)


def consumes(config: PartConfig) -> type:
    """The batch that a method trains on: Clips, Pairs or Credited.

    Raises:
        BadConfig: it does not say.
    """
    found = getattr(config, "consumes", None)
    if found not in (Clips, Pairs, Credited):
        raise BadConfig(
            f"the method {shown(config.name)} does not say what it trains on; let `consumes` of its Config be Clips, "
            "Pairs or Credited of reelign.batches."
        )
    return found


def needs(config: PartConfig) -> frozenset[str]:
    """The frozen weights that a method uses beside the policy, of {"reference", "sampled"}.

    One that needs "sampled" rolls out with them.

    Raises:
        BadConfig: it says something else, or its modules do not go together.
    """
    found = getattr(config, "needs", ())
    if not _is_set(found) or not set(found) <= _NEEDS:
        raise BadConfig(
            f"the method {shown(config.name)} needs {shown(found)}; let `needs` of its Config be a set of "
            "reference, sampled, both or none."
        )
    return frozenset(found)


def replaces(config: PartConfig) -> frozenset[str]:
    """The slots that a module alone decides.

    Raises:
        BadConfig: it says something else.
    """
    found = getattr(config, "replaces", ())
    if not _is_set(found) or not all(isinstance(name, str) for name in found):
        raise BadConfig(
            f"the module {shown(config.name)} replaces {shown(found)}; let `replaces` of its Config be a set of "
            "names of slots."
        )
    return frozenset(found)


def _is_set(found: object) -> bool:
    return isinstance(found, Collection) and not isinstance(found, str | Mapping)


def source(code: object) -> str:
    """The file of a module, a class, a function, or an object's class; nothing where it has none that can be found."""
    known = inspect.ismodule(code) or inspect.isclass(code) or inspect.isroutine(code)
    try:
        return inspect.getsourcefile(code if known else type(code)) or ""  # type: ignore[arg-type]
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


def problem(kind: Kind, config: Any) -> str | None:
    """What keeps a `Config` from being that of a judge of that kind, to go on a sentence with; None if nothing does."""
    missing = [name for name in WANTED[kind] if not hasattr(config, name)]
    other: Kind = "metric" if kind == "reward" else "reward"
    if missing and all(hasattr(config, name) for name in WANTED[other]):
        return f"is a {other}, not a {kind}"
    if missing:
        return f"has no {' and no '.join(missing)}"
    declares = "scores" if kind == "reward" else "higher_is_better"
    names = getattr(config, declares)
    if not isinstance(names, Mapping) or not names:
        return f"declares {declares} as {shown(names)}"
    wrong = next((name for name in names if not _is_name(name)), None)
    if wrong is not None:
        return (
            f"calls a score {shown(wrong)}, but names are printable text of at most {LONGEST_NAME} letters "
            "without '/', which has a meaning of its own"
        )
    found = _reward_problem(config) if kind == "reward" else _metric_problem(config)
    return found or _common_problem(config)


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        return False
    return name.isprintable() and name == name.strip() and "/" not in name


def _reward_problem(config: Any) -> str | None:
    for name, scale in config.scores.items():
        numeric = (
            isinstance(scale, list | tuple) and len(scale) == 2 and all(isinstance(v, numbers.Real) for v in scale)
        )
        if not numeric or not scale[0] < scale[1]:
            return f"declares the scale of {name!r} as {shown(scale)}"
    return "declares no version" if config.version is None else None


def _metric_problem(config: Any) -> str | None:
    if not all(isinstance(better, bool) for better in config.higher_is_better.values()):
        return f"declares higher_is_better as {shown(config.higher_is_better)}"
    described = isinstance(config.description, Mapping) and set(config.description) == set(config.higher_is_better)
    if not described or not all(isinstance(text, str) for text in config.description.values()):
        return "does not describe each of its measures"
    return None


def _common_problem(config: Any) -> str | None:
    version, reads = getattr(config, "version", None), getattr(config, "reads", None)
    if not isinstance(version, str | None):
        return f"declares the version {shown(version)}, which is no text"
    sized = isinstance(reads, tuple) and len(reads) == 3 and all(type(n) is int and n > 0 for n in reads)
    if reads is not None and not sized:
        return f"reads {shown(reads)}, which is no (frames, height, width)"
    return None
