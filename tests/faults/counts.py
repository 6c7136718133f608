"""How many faults were injected and what became of them; the table of docs/reliability.md is made of these."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).parents[2] / "build" / "faults.jsonl"
"""One row a test that injected all its faults; `python -m tests.faults.table` reads it."""


@dataclass(slots=True)
class Counts:
    """Of one kind of fault. What is in neither of the first two counts is wrong, and stands in `other`."""

    suite: str
    """The file that injects them."""
    keep: bool
    """Whether to write the counts down."""
    kind: str
    same: int = 0
    """Went on, at once or with --resume, to the same bits; of commands that compute nothing: ended with 0."""
    sentence: int = 0
    """Refused in one sentence, and the bits are reached once the fault is undone."""
    other: list[str] = field(default_factory=list)

    def note(self, what: str, outcome: str) -> None:
        """Count one fault: its outcome is "same", "sentence", or what is wrong."""
        if outcome in ("same", "sentence"):
            setattr(self, outcome, getattr(self, outcome) + 1)
        else:
            self.other.append(f"{what}: {outcome}")

    def settle(self) -> None:
        """All faults are injected: write the counts down, and fail if anything is wrong."""
        row = {
            "suite": self.suite,
            "kind": self.kind,
            "same": self.same,
            "sentence": self.sentence,
            "other": self.other,
        }
        if self.keep:
            FILE.parent.mkdir(exist_ok=True)
            # One write of one line: two processes may append at once.
            descriptor = os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.write(descriptor, (json.dumps(row) + "\n").encode())
            os.close(descriptor)
        total = self.same + self.sentence + len(self.other)
        shown = "\n".join(self.other[:25])
        assert not self.other, f"{len(self.other)} of {total} {self.kind}:\n{shown}"
