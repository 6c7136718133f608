"""Users' tables: every row knows its line, and every text in it is one."""

import csv
import io
import json
import re
from collections.abc import Collection
from pathlib import Path

from reelign.datasets._files import text
from reelign.errors import BadData, shown

Row = tuple[int, dict[str, object]]
"""A line number, from 1, and what stands there by column."""

DELIMITERS = ",;\t"
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def json_rows(path: Path) -> list[Row]:
    """The objects of a JSON-lines file; blank lines are passed over.

    Raises:
        BadData: a line is no JSON object, or has a key twice.
    """
    rows: list[Row] = []
    for number, line in enumerate(text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line, object_pairs_hook=lambda pairs, where=where: _keyed(pairs, where))
        except (ValueError, RecursionError) as error:  # also a number of thousands of digits
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply, or a number too long"
            raise BadData(f"{where}: no valid JSON ({reason}); each line must be one JSON object.") from error
        if not isinstance(row, dict):
            raise BadData(f"{where}: a JSON {type(row).__name__}; each line must be one JSON object.")
        rows.append((number, row))
    return rows


def _keyed(pairs: list[tuple[str, object]], where: str) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
        raise BadData(f"{where}: {shown(twice)} stands there twice; keep one of them.")
    return found


def csv_rows(path: Path) -> list[Row]:
    """The rows of a CSV file with a header line; cells are set apart by commas, semicolons or tabs.

    Raises:
        BadData: no header, a column twice, or a row with another number of cells than the header.
    """
    content = text(path)
    header = content.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    rows: list[Row] = []
    try:
        names = [name.strip() for name in next(reader, [])]
        if not any(names):
            raise BadData(f"{path} is empty; its first line must name the columns.")
        if twice := [name for name in names if names.count(name) > 1]:
            raise BadData(f"{path}, line 1: the column {shown(twice[0])} stands there twice; keep one of them.")
        for cells in filter(None, reader):
            if len(cells) != len(names):
                raise BadData(
                    f"{path}, line {reader.line_num}: more or fewer cells than the {len(names)} columns; put a text "
                    f"that holds {shown(delimiter)} in double quotes."
                )
            rows.append((reader.line_num, dict(zip(names, cells, strict=True))))
    except csv.Error as error:
        raise BadData(f"{path}, line {reader.line_num}: no valid CSV ({error}); save it as CSV again.") from error
    return rows


def only(row: dict[str, object], allowed: tuple[str, ...], where: str) -> None:
    """Refuse keys that would be ignored.

    Raises:
        BadData: the row has a key that is not allowed.
    """
    if unknown := sorted(set(row) - set(allowed)):
        raise BadData(
            f"{where}: unknown key {shown(unknown[0])}; allowed are {', '.join(allowed)}: rename or remove it."
        )


def column(row: dict[str, object], known: tuple[str, ...], what: str, setting: str, where: str) -> str:
    """The one column of a row that goes by a known name, in any case.

    Raises:
        BadData: there is none of them, or more than one.
    """
    there = [name for key in known for name in row if name.lower() == key]
    if len(there) == 1:
        return there[0]
    problem = f"a {what} in both {' and '.join(there[:2])}" if there else f"no {what} among {_listed(row)}"
    remedy = f"rename one{f', or set {setting}' if setting else ''}"
    raise BadData(f"{where}: {problem}; one column of {', '.join(known)} is read: {remedy}.")


def string(row: dict[str, object], key: str, where: str) -> str:
    """A non-empty text of a row, stripped.

    Raises:
        BadData: missing, empty, or no text.
    """
    if key not in row:
        raise BadData(f"{where}: no {shown(key)}, only {_listed(row)}; add {shown(key)}.")
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise BadData(f"{where}: {shown(key)} is {shown(value)}; it must be a text that is not empty.")
    return valid(value, where).strip()


def line(row: dict[str, object], key: str, where: str) -> str:
    """The same on one line, as prompts are.

    Raises:
        BadData: missing, empty, or no text.
    """
    return " ".join(string(row, key, where).split())


def valid(value: str, where: str) -> str:
    r"""The text itself.

    Raises:
        BadData: a NUL or half of a surrogate pair is in it, which `\u` escapes can write but no text has.
    """
    if _NO_TEXT.search(value):
        raise BadData(f"{where}: {shown(value)} is no valid text (half of an emoji, or a NUL); write it again.")
    return value


def _listed(row: Collection[str]) -> str:
    return ", ".join(shown(name) for name in list(row)[:12]) or "nothing"
