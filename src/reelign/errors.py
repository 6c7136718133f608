"""What can go wrong on the user's side.

UserError                   the user's input; the command line prints one sentence and exits with 2
├── UnknownPart             a name that no method, reward, model, dataset, metric or stage has
├── BadConfig               a recipe or override that does not fit its typed config
├── BadData                 a clip, caption, prompt or pair that cannot be read or does not fit
├── BadCheckpoint           a checkpoint that is missing, damaged, unsafe or of another model
├── MissingExtra            an optional dependency that is not installed
└── RunStopped              a run that must not go on: non-finite loss or reward, nothing to train, disk full
    ├── PartFailed          a reward or metric that raised, or gave something else than one number a clip
    └── CannotWrite         a file that the system does not take
"""

import os
import reprlib
import sysconfig
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class UserError(Exception):
    """Something the user can mend; the message says what was given, what is allowed and what to do."""


class UnknownPart(UserError, ValueError):  # a ValueError, so that pydantic says where in a recipe it stands
    """A name that no part of that kind has."""


class BadConfig(UserError, ValueError):
    """A recipe or an override that does not fit its typed config."""


class BadData(UserError):
    """A clip, caption, prompt or pair that cannot be read or does not fit the model."""


class BadCheckpoint(UserError):
    """A checkpoint that is missing, damaged, unsafe to load or of another model."""


class MissingExtra(UserError):
    """An optional dependency that is not installed."""


class RunStopped(UserError):
    """A run that must not go on; what was saved before stays intact."""


class PartFailed(RunStopped):
    """A reward or metric that misbehaved, before anything of the running step was changed."""


class _Short(reprlib.Repr):
    """Python's own shortening, with room for a path."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxset = 2, 3, 4, 4, 4
        self.maxstring, self.maxother = 100, 100

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write numbers of more than 4300 digits.
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"a number of {x.bit_length():,} bits"


_SHORT = _Short()


def cut(value: object, most: int = 160) -> str:
    """A text on one line, without its middle where it is long; what is allowed and what to do stand at the end."""
    text = " ".join(str(value).split())
    kept = most - 5
    return text if len(text) <= most else f"{text[: kept * 2 // 3]} ... {text[-(kept - kept * 2 // 3) :]}"


def shown(value: object) -> str:
    """A value that a user gave, as it stands in a sentence: on one line and short.

    Example:
        >>> shown("x" * 1000)[:12], len(shown("x" * 1000))
        ("'xxxxxxxxxxx", 100)
        >>> shown({"name": "grpo", "steps": [1, 2, 3, 4, 5, 6]})
        "{'name': 'grpo', 'steps': [1, 2, 3, 4, ...]}"
    """
    return cut(_SHORT.repr(value))


def meant(given: str, known: Iterable[str]) -> str:
    """The known name that is nearest to what was given, as an aside for a sentence; nothing if none is near.

    Example:
        >>> meant("degradd", ("degraded", "playground_motion"))
        " (did you mean 'degraded'?)"
    """
    near = get_close_matches(given, tuple(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def sentence(error: BaseException) -> str:
    """What a user is told: one line, short even where a part's own words are not."""
    return cut(str(error), 800)


def reason(error: Exception) -> str:
    """What the system says of a path, without the path; errors of Python are of names that no path can have."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def raised(error: BaseException) -> str:
    """What was raised, and where in the user's own code.

    Example:
        >>> raised(KeyError("depth"))
        "KeyError: 'depth'"
    """
    said = cut(traceback.format_exception_only(error)[-1], 240).rstrip(".")
    if isinstance(error, SyntaxError):
        return f"{said} ({shown(error.filename)}, line {error.lineno})"
    ours = (f"{Path(__file__).parent}{os.sep}", "<")
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    # Their own line rather than the library's that it calls; a part that is itself installed enters with its first one.
    own = [f for f in frames if not f.filename.startswith(libraries)][-1:] or frames[:1]
    return f"{said} ({shown(own[0].filename)}, line {own[0].lineno})" if own else said


class CannotWrite(RunStopped):
    """A file that the system does not take: the disk is full, the place is read-only, its folder is gone."""

    def __init__(self, path: object, reason: str, remedy: str, then: str = " or choose another place") -> None:
        """Make the sentence; `remedy` is what helps, `then` how to go on."""
        self.path, self.reason, self.remedy = path, reason, remedy
        super().__init__(f"cannot write {cut(str(path), 200)}: {reason}; {remedy}{then}.")
