"""A table as plain text."""

from collections.abc import Iterable

NONE = "-"
"""In a table: what there is none of."""


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A plain text table; columns of numbers to the right, and a dash for what there is none of."""
    names, body = [str(name) for name in header], [[cell(value) for value in row] for row in rows]
    columns = list(zip(names, *body, strict=True))
    widths = [max(map(len, column)) for column in columns]
    to_right = [all(map(_number, column[1:])) for column in columns]
    lines = []
    for row in (names, ["-" * width for width in widths], *body):
        cells = [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, to_right, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def cell(value: object) -> str:
    """A value as it stands there."""
    if value is None:
        return NONE
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(text: str) -> bool:
    """Whether a cell is one of a column of numbers."""
    try:
        float(text)
    except ValueError:
        return text == NONE
    return True
