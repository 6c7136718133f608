"""What lies in a run folder, and who may write there.

config.json            the resolved recipe and its digest
ledger.jsonl           one row a finished stage
metrics.jsonl          one row a step
evaluations/, samples/ held-out measures and clips of every stage
checkpoints/           what a run goes on from
final/                 the exported model
"""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import reelign
from reelign import config as configs
from reelign.driver.recipe import Recipe
from reelign.errors import BadConfig
from reelign.files import replacing_folder, sweep, write_text

Json = dict[str, Any]
LOCK = ".lock"


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        """Name the files; nothing is read or written."""
        self.path = path
        self.config = path / "config.json"
        self.checkpoints = path / "checkpoints"
        self._metrics = path / "metrics.jsonl"
        self._ledger = path / "ledger.jsonl"

    def prepare(self, recipe: Recipe, resume: bool) -> None:
        """Start the folder, or see that it holds the run to go on with.

        Raises:
            BadConfig: it holds a run and `resume` was not asked for, holds none although it was, or was started with
                other settings.
        """
        if not self.config.exists():
            if resume:
                raise BadConfig(f"{str(self.path)!r} holds no run to resume; start it without --resume.")
            content = {"hash": configs.digest(recipe), "version": reelign.__version__, "config": configs.dump(recipe)}
            write_text(self.config, json.dumps(content, indent=1))
            return
        if not resume:
            raise BadConfig(
                f"{str(self.path)!r} already holds a run; go on with --resume, or choose another name with "
                "--set run.name=...."
            )
        before = json.loads(self.config.read_text(encoding="utf-8"))
        if before["hash"] != configs.digest(recipe):
            change = _first_change(before["config"], configs.dump(recipe))
            raise BadConfig(
                f"{str(self.path)!r} was started with other settings ({change}); resume with the same recipe."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder: two runs in one folder are impossible, and a killed run leaves no stale lock.

        Raises:
            BadConfig: another process holds it.
        """
        with (self.path / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BadConfig(
                    f"another process is running in {str(self.path)!r}; wait for it or choose another run.name."
                ) from error
            yield

    def sweep(self) -> None:
        """Remove what a killed run left half-written; the lock must be held."""
        sweep(self.path)

    def clear_if_untouched(self) -> None:
        """Give the name back if the run was refused before it made anything but its first checkpoint."""
        if {file.name for file in self.path.iterdir()} <= {self.config.name, self.checkpoints.name, LOCK}:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            self.config.unlink(missing_ok=True)

    def log(self, row: Json) -> None:
        """Add a step to metrics.jsonl."""
        _append(self._metrics, row)

    def record(self, row: Json) -> None:
        """Add a stage to ledger.jsonl."""
        _append(self._ledger, row)

    def forget_after(self, stage: int, step: int) -> None:
        """Drop the rows that the steps about to be repeated will write again."""
        for path, first in ((self._metrics, (stage, step)), (self._ledger, (stage, -1))):
            if path.exists():
                kept = [r for r in _rows(path) if (r["index"], r.get("step", -1)) < first]
                write_text(path, "".join(_line(r) for r in kept))

    def evaluation(self, label: str) -> Json:
        """What evaluating the weights `label` found."""
        return json.loads(self._evaluation(label).read_text(encoding="utf-8"))

    def kept_before(self, stage: int) -> str:
        """Label of the evaluation of the weights that entered a stage: that of the last gate which let weights pass."""
        rows = list(_rows(self._ledger)) if self._ledger.exists() else []
        kept = [r["stage"] for r in rows if r["index"] < stage and r["gate"]["verdict"] != "failed"]
        kept = [label for label in kept if self._evaluation(label).exists()]
        return kept[-1] if kept else "base"

    def export(self, write: Callable[[Path], object]) -> None:
        """Let `write` fill `final/`; a half-written one is never called final."""
        with replacing_folder(self.path / "final") as temporary:
            write(temporary)

    def _evaluation(self, label: str) -> Path:
        return self.path / "evaluations" / f"{label}.json"


def _line(row: Json) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _append(path: Path, row: Json) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(row))


def _rows(path: Path) -> Iterator[Json]:
    """Rows of a JSONL file; a last line that a kill cut short is left out."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def _first_change(old: Any, new: Any, path: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(key, old.get(key), new.get(key)) for key in sorted({*old, *new})]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        return f"{path}: {old!r} then, {new!r} now"
    return next((_first_change(a, b, f"{path}.{key}".strip(".")) for key, a, b in pairs if a != b), path)
