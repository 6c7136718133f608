"""What the steps of a run reported, by stage and quantity."""

from array import array
from dataclasses import dataclass, field
from pathlib import Path

from reelign import records
from reelign.report import reading


@dataclass(slots=True)
class Series:
    """One quantity of one stage: what each step reported, in the order of the file, non-finite values included."""

    steps: array = field(default_factory=lambda: array("q"))
    values: array = field(default_factory=lambda: array("d"))


def read(path: Path) -> dict[str, dict[str, Series]]:
    """Columns by stage and quantity: a row that was read is dropped, so that long runs fit into memory.

    Raises:
        UserError: a row cannot be read, or names no stage and step.
    """
    found: dict[str, dict[str, Series]] = {}
    for row, where in reading.rows(path):
        read = records.Step.read(row, where)
        columns = found.setdefault(read.stage, {})
        for name, value in read.metrics.items():
            series = columns.setdefault(name, Series())
            series.steps.append(read.step)
            series.values.append(value)
    return found
