"""All that happens, a line each, in events.jsonl of the run folder: for programs that follow a run.

It is a diary, not a record: a run that is taken up again tells the steps that it repeats once more. What the run itself
hangs on stands in ledger.jsonl and metrics.jsonl.
"""

import json
from dataclasses import asdict
from pathlib import Path

from reelign.events import About, Event
from reelign.files import append
from reelign.parts import PartConfig


class Config(PartConfig):
    """Nothing to set."""

    name: str = "jsonl"


class Lines:
    """Owns one file, which only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, event: Event) -> None:
        """Write a line."""
        append(self._path, json.dumps(asdict(event), default=str).encode() + b"\n")

    def close(self) -> None:
        """Every line is written already."""


def build(config: Config, run: About) -> Lines:
    """Go on with the file, or begin it."""
    return Lines(run.folder / "events.jsonl")
