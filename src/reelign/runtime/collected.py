"""What a collecting stage has written: the record that says which files are its own, and what is in them.

    <path>/collected.jsonl   the run's id, then one row a step: its files and their sha256

A folder without that record, or with another run's, was made by somebody else and is left as it is.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reelign.errors import BadData
from reelign.files import append, digest, replacing_folder, sync, write_text, writing
from reelign.runtime.journal import parsed


class Collected:
    """One folder of pairs. Owns every file in it."""

    def __init__(self, run_folder: Path, path: str, run: str, steps: int) -> None:
        self.folder, self.steps = run_folder / path, steps
        self._run_folder, self._run = run_folder, run
        self._record = self.folder / "collected.jsonl"

    @property
    def is_ours(self) -> bool:
        """Whether this run has begun to write it."""
        return self._rows()[:1] == [{"run": self._run}]

    def refuse_foreign(self) -> None:
        """See that the folder is this run's to write, or not there.

        Raises:
            BadData: somebody else made it, or a link leads out of the run folder.
        """
        inside = self.folder.resolve().is_relative_to(self._run_folder.resolve())
        if not inside or self.folder.is_symlink():
            raise BadData(f"{str(self.folder)!r} is or lies behind a link; move it away or choose another `path`.")
        if not os.path.lexists(self.folder) or (self.folder.is_dir() and not any(self.folder.iterdir())):
            return
        if not self.is_ours:
            raise BadData(
                f"{str(self.folder)!r} was not written by this run and is not replaced; move it away or choose another "
                "`path` for the stage."
            )

    def claim(self, start: int) -> None:
        """Get the folder ready for step `start`: empty for the first, else with what the steps before have written.

        Raises:
            BadData: it is not this run's, or not what those steps have written.
        """
        if start:
            self.verify(start)
        self.refuse_foreign()
        if start == 0:
            with replacing_folder(self.folder) as temporary:
                (temporary / "clips").mkdir(parents=True)
                write_text(temporary / self._record.name, _text([{"run": self._run}]))
        else:
            write_text(self._record, _text(self._rows()[: start + 1]))

    def note(self, step: int, files: Sequence[str]) -> None:
        """Record what a step has written."""
        row = {"step": step, "files": {name: digest(self.folder / name) for name in files}}
        with writing(self._record):
            append(self._record, _text([row]).encode())
            sync(self._record)

    def verify(self, steps: int) -> None:
        """See that all files of the first so many steps are as they were written.

        Raises:
            BadData: one is changed, damaged or gone.
        """
        if not self.is_ours:
            raise self._changed(self._record)
        rows = self._rows()[1 : steps + 1]
        files = [row["files"] for row in rows if isinstance(row.get("files"), dict)]
        if len(files) < steps or [row.get("step") for row in rows] != list(range(steps)):
            raise self._changed(self._record)
        for name, expected in (item for each in files for item in each.items()):
            path = self.folder / name
            if not path.is_file() or digest(path) != expected:
                raise self._changed(path)

    def _changed(self, path: Path) -> BadData:
        return BadData(
            f"{str(path)!r} is not what the stage has collected: it was changed, damaged or removed; put it back, or "
            "start a new run."
        )

    def _rows(self) -> list[dict[str, Any]]:
        """Of the record, up to the first that cannot be read."""
        rows: list[dict[str, Any]] = []
        if not self._record.is_file():
            return rows
        for line in self._record.read_bytes().split(b"\n")[:-1]:
            row = parsed(line)
            if row is None:
                return rows
            rows.append(row)
        return rows


def _text(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
