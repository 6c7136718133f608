"""Reading users' tables and texts: every row knows its line, every path stays in its folder."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from reelign.errors import BadData

Row = tuple[int, dict[str, object]]
"""A line number, from 1, and what stands there by column."""


def text(path: Path) -> str:
    """The whole file as UTF-8, with or without a byte-order mark.

    Raises:
        BadData: missing, a folder, unreadable, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    except FileNotFoundError as error:
        raise BadData(f"there is no file at {path}; check the path.") from error
    except OSError as error:
        raise BadData(f"{path} cannot be read ({error.strerror}); give a text file.") from error


def folder(path: Path) -> Path:
    """The folder itself, symbolic links resolved.

    Raises:
        BadData: missing, or no folder.
    """
    if not path.exists():
        raise BadData(f"there is no folder at {path}; check the path.")
    if not path.is_dir():
        raise BadData(f"{path} is not a folder; give the folder that holds the clips.")
    return path.resolve()


def json_rows(path: Path) -> list[Row]:
    """The objects of a JSON-lines file; blank lines are passed over.

    Raises:
        BadData: a line is no JSON object.
    """
    rows: list[Row] = []
    for number, line in enumerate(text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            raise BadData(
                f"{path}, line {number}: no valid JSON ({reason}); each line must be one JSON object."
            ) from error
        if not isinstance(row, dict):
            raise BadData(f"{path}, line {number}: a JSON {type(row).__name__}; each line must be one JSON object.")
        rows.append((number, row))
    return rows


def csv_rows(path: Path) -> list[Row]:
    """The rows of a CSV file with a header line.

    Raises:
        BadData: no header, or a row with another number of cells than the header.
    """
    reader = csv.DictReader(io.StringIO(text(path), newline=""), strict=True)
    rows: list[Row] = []
    try:
        if not reader.fieldnames:
            raise BadData(f"{path} is empty; its first line must name the columns.")
        for row in reader:
            if None in row or None in row.values():
                raise BadData(
                    f"{path}, line {reader.line_num}: more or fewer cells than the {len(reader.fieldnames)} columns; "
                    "put a text that holds commas in double quotes."
                )
            rows.append((reader.line_num, dict(row)))
    except csv.Error as error:
        raise BadData(f"{path}, line {reader.line_num}: no valid CSV ({error}); save it as CSV again.") from error
    return rows


def only(row: dict[str, object], allowed: tuple[str, ...], where: str) -> None:
    """Refuse keys that would be ignored.

    Raises:
        BadData: the row has a key that is not allowed.
    """
    if unknown := sorted(set(row) - set(allowed)):
        raise BadData(f"{where}: unknown key {unknown[0]!r}; allowed are {', '.join(allowed)}: rename or remove it.")


def string(row: dict[str, object], key: str, where: str) -> str:
    """A non-empty text of a row, stripped, on one line.

    Raises:
        BadData: missing, empty, or no text.
    """
    if key not in row:
        raise BadData(f"{where}: no {key!r}, only {', '.join(map(repr, row)) or 'nothing'}; add {key!r}.")
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise BadData(f"{where}: {key!r} is {value!r}; it must be a text that is not empty.")
    return " ".join(value.split())


def inside(root: Path, name: str, where: str) -> Path:
    """The file `name` of a folder, which it must not leave: not by `..`, an absolute path, or a symbolic link.

    Args:
        root: the folder, resolved.
        name: relative path as the user wrote it, with forward slashes.
        where: file and line, for the sentence.

    Raises:
        BadData: the path leaves the folder.
    """
    windows = PureWindowsPath(name)  # splits at both slashes and knows drives
    outside = f"{where}: {name!r} leaves the folder {root}; use a path inside it, relative to it."
    if "\0" in name or "\\" in name or windows.anchor or name.startswith("~") or ".." in windows.parts:
        raise BadData(outside)
    path = root / name
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise BadData(outside) from error
    if not real.is_relative_to(root):
        raise BadData(outside)
    return path


def first_three(names: Iterator[str] | list[str]) -> str:
    """The first three of a list, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return "; ".join(names[:3]) + more
