"""What the steps of a run reported, by stage and quantity."""

import math
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from reelign.errors import UserError
from reelign.report import reading

_RESERVED = frozenset({"stage", "index", "step", "wall_s"})


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
        stage, step = row.get("stage"), row.get("step")
        if not isinstance(stage, str) or not isinstance(step, int) or not 0 <= step < 2**63:
            raise UserError(f"{where} needs a 'stage' (a name) and a 'step' (a whole number); restore the file.")
        columns = found.setdefault(stage, {})
        for name, value in row.items():
            if name not in _RESERVED and isinstance(value, int | float) and not isinstance(value, bool):
                series = columns.setdefault(name, Series())
                series.steps.append(step)
                series.values.append(value if isinstance(value, float) or abs(value) < 2**1000 else math.inf)
    return found
