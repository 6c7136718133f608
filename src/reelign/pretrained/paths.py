"""Files of a model folder: found, regular, readable, JSON; each thing that can be wrong has its own sentence."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from reelign.errors import BadCheckpoint, UserError, cut, reason

JSON_BYTES = 2**24
"""A larger config is none."""
POINTER = b"version https://git-lfs"


def locate(given: str) -> Path:
    """The path that a setting names; `~` is the home folder.

    Raises:
        BadCheckpoint: no system has such a path.
    """
    try:
        path = Path(given).expanduser()
        os.stat(path)
    except FileNotFoundError:
        pass  # what is missing is told by whoever needs it, with what it should hold
    except (OSError, RuntimeError, ValueError) as error:
        raise BadCheckpoint(f"{cut(given)!r} cannot be opened: {reason(error)}; give a local folder.") from error
    return path


def size_of(path: Path) -> int:
    """Bytes of a regular file that can be read; links are followed.

    Raises:
        BadCheckpoint: it is missing, a link to nothing or in a loop, no regular file, not readable, or a git-lfs
            pointer.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise BadCheckpoint(
                f"{str(path)!r} is a link to {str(path.readlink())!r}, which is not there; "
                "copy the folder with what its links point to."
            ) from error
        raise BadCheckpoint(
            f"{str(path.parent.parent)!r} has no {path.parent.name}/{path.name}; its download may be incomplete."
        ) from error
    except OSError as error:
        _unreadable(path, error)
    if not stat.S_ISREG(found.st_mode):
        raise BadCheckpoint(f"{str(path)!r} is no regular file; a model folder holds files and links to files only.")
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        _unreadable(path, error)
    if start == POINTER:
        raise BadCheckpoint(
            f"{str(path)!r} is a git-lfs pointer, not the file itself; run `git lfs pull` in the folder."
        )
    return found.st_size


def _unreadable(path: Path, error: OSError) -> NoReturn:
    told = "it is a loop of links" if error.errno == errno.ELOOP else reason(error)
    raise BadCheckpoint(f"{str(path)!r} cannot be read: {told}.") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the folder.

    Raises:
        BadCheckpoint: see `size_of`; or it is no JSON object, or holds a number that is infinite or none.
    """
    if size_of(path) > JSON_BYTES:
        raise BadCheckpoint(f"{str(path)!r} is larger than {JSON_BYTES >> 20} MiB, so it is no config.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(
            f"{str(path)!r} is not valid JSON ({cut(error)}); its download may be incomplete."
        ) from error
    if not isinstance(found, dict):
        raise BadCheckpoint(f"{str(path)!r} holds a JSON {type(found).__name__}, but a config is an object.")
    return found


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


@contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """Turn whatever stock code raises about a folder into one sentence.

    Raises:
        BadCheckpoint: anything was raised.
    """
    try:
        yield
    except UserError:
        raise
    # Loaders of three libraries, over files of any origin, raise what they please, plain Exception from Rust included.
    except Exception as error:
        told = cut(error) or type(error).__name__
        raise BadCheckpoint(f"{str(folder)!r} cannot be read as a {what}: {told.rstrip('.')}.") from error
