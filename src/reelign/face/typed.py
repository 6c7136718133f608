"""What is typed in Python instead of YAML and options: classes for names of parts, and sentences that say so."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from reelign import config as configs
from reelign.errors import UserError
from reelign.settings import PartConfig

_SAID = (
    (r"--set ([\w.]+)=(\.{3}|[^\s;,.)`]+)", r'set={"\1": \2}'),
    (r"each --set that", "each set that"),
    (r"--set ([\w.]+):", r'set "\1":'),
    (r"--(resume|accept-changes)", lambda found: f"{found[1].replace('-', '_')}=True"),
    (r"--(frames|height|width|fps|steps|shift|guidance):", r"\1:"),
)
"""Options of the command line, and how they are written in Python."""


def plain(value: Any) -> Any:
    """Settings as YAML holds them: a class of settings is its name, `__main__:Sharp`, and its values are plain."""
    if isinstance(value, type) and issubclass(value, PartConfig):
        alone = not any(hasattr(value, builder) for builder in ("build", "fill"))
        return value.__module__ if alone else f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, BaseModel):
        return configs.dump(value)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def said(text: str) -> str:
    """A sentence with Python's arguments where it says the command line's options.

    Example:
        >>> said("go on with --resume, or choose another name with --set run.name=....")
        'go on with resume=True, or choose another name with set={"run.name": ...}.'
    """
    for option, argument in _SAID:
        text = re.sub(option, argument, text)
    return text


@contextmanager
def sentences(*more: type[Exception]) -> Iterator[None]:
    """Let what is refused speak of what was typed; of other errors than UserError those that are named here."""
    try:
        yield
    except (UserError, *more) as error:
        error.args = (said(str(error)),)
        raise
