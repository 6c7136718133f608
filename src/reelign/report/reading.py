"""Reading the files of a run folder: values, or one sentence that names the file and what is wrong with it."""

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from reelign.errors import UserError

LARGEST_MIB = 256
"""Of a JSON document; an evaluation of 100,000 clips needs a third of it."""
LONGEST_LINE_MIB = 16
"""Of a row."""


def document(path: Path) -> Any:
    """What a JSON file holds; None if there is no such file.

    Raises:
        UserError: it cannot be read, is no file, is too large or not JSON.
    """
    with _opened(path) as file:
        if file is None:
            return None
        raw = file.read(LARGEST_MIB * 2**20 + 1)
    if len(raw) > LARGEST_MIB * 2**20:
        raise UserError(f"{path} is larger than {LARGEST_MIB} MiB, which no run writes; restore it from a copy.")
    try:
        return _parsed(raw)
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); restore it from a copy.") from error


def rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a JSONL file, one a line, each with where it stands; none if there is no such file.

    A last line that a killed run left half-written is dropped.

    Raises:
        UserError: it cannot be read, is no file, or a line is damaged.
    """
    with _opened(path) as file:
        number = 0
        while file is not None and (line := file.readline(LONGEST_LINE_MIB * 2**20)):
            number += 1
            where = f"{path}, line {number}"
            ended = line.endswith(b"\n")
            if not ended and len(line) == LONGEST_LINE_MIB * 2**20:
                raise UserError(
                    f"{where} is longer than {LONGEST_LINE_MIB} MiB, which no run writes; delete that line."
                )
            if not line.strip():
                continue
            try:
                row = _parsed(line)
            except ValueError as error:
                # Only a line without its end can have been cut off by a crash; anything else is damage.
                if not ended:
                    return
                raise UserError(f"{where} is not JSON ({error}); restore the file or delete that line.") from error
            if not isinstance(row, dict):
                raise UserError(f"{where} should hold an object, not {type(row).__name__}; restore the file.")
            yield row, where


def lines(path: Path, most: int) -> tuple[tuple[str, ...], int]:
    """The first `most` lines of a text file that are not empty, and how many there are; none if there is no such file.

    Raises:
        UserError: it cannot be read, or is no file.
    """
    found, total = [], 0
    with _opened(path) as file:
        for line in file or ():
            if text := line.decode("utf-8", errors="replace").strip():
                total += 1
                if len(found) < most:
                    found.append(text)
    return tuple(found), total


def names(folder: Path, ending: str) -> tuple[Path, ...]:
    """Files of a folder by name; none if there is no such folder.

    Raises:
        UserError: it cannot be read, or is no folder.
    """
    try:
        return tuple(sorted(path for path in folder.iterdir() if path.suffix == ending))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UserError(f"{folder} cannot be read as a folder ({_reason(error)}); restore it from a copy.") from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | None]:
    """A regular file to read, or None if there is none; a pipe would wait for ever, so it is not opened."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is a folder or a device where a file should be; restore it from a copy.")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        if path.is_symlink():
            raise UserError(f"{path} is a link to nothing; restore what it points to, or remove it.") from error
        yield None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({_reason(error)}); mend that and write the report again.") from error


def _parsed(raw: bytes) -> Any:
    """JSON from bytes; whatever is wrong with them is a ValueError of one line."""
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no UTF-8") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
