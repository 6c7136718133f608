"""What lies in a run folder, and who may write there.

config.json            the run's id, the resolved recipe and its digest
run.json               where it stands, as it says itself
ledger.jsonl           one row a finished stage
metrics.jsonl          one row a step
samples.jsonl          one row a sample that an online stage has kept to be looked at
evaluations/, samples/ held-out measures and clips of every stage; in evaluations/steps/ those on the way
checkpoints/           what a run goes on from
final/, final.json     the exported model, and what is in it
log.txt                what was said, and a line now and then
left_out.txt           files of the data sets that are not read, and why; only where there are some
"""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reelign.driver import started
from reelign.driver.recipe import Recipe
from reelign.driver.state import State
from reelign.errors import BadCheckpoint, BadConfig, BadData, CannotWrite
from reelign.files import digest, sweep, sync, writing
from reelign.parts import PartConfig
from reelign.records import Evaluation, Stage
from reelign.runtime.checkpoint import Store
from reelign.runtime.collected import Collected
from reelign.runtime.final import Final
from reelign.runtime.journal import Journal, Json

LOCK = ".lock"
ON_THE_WAY = "steps"
"""Folder of the evaluations on the way, below that of all: a stage's own file has its label, in which there is no /."""
_NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK})


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path, self.id = path, ""
        self.config, self.log, self.final = path / "config.json", path / "log.txt", Final(path)
        self.metrics, self.ledger = Journal(path / "metrics.jsonl"), Journal(path / "ledger.jsonl")
        self.samples, self.status = Journal(path / "samples.jsonl"), path / "run.json"
        self.rows: list[Json] = []
        """Those of the ledger."""
        self.evaluations: dict[str, str] = {}
        """The sha256 of each evaluation's file, by label."""
        self.checkpoints = Store(path / "checkpoints", "")
        self._about: Json = {}

    def prepare(self, recipe: Recipe, resume: bool, about: Json | None = None) -> None:
        """Start the folder, or see that it holds the run to go on with; the lock must be held.

        `about` is what config.json says beside the settings.

        Raises:
            BadConfig: it does not.
        """
        self._about = about or {}
        self.id = self.checkpoints.run = started.prepare(self.path, recipe, resume, self._about)

    def model(self, recipe: Recipe) -> PartConfig:
        """The settings to build the model with: once weights are saved, without the files that they began with."""
        return started.model(self.path, recipe) if self.checkpoints.peek() else recipe.model

    def take_over(self, recipe: Recipe) -> None:
        """Let config.json say the steps that the run is extended to, and where its data lies now."""
        started.take_over(self.path, recipe, self._about)

    @contextmanager
    def locked(self, say: Callable[[str], object] = lambda _: None) -> Iterator[None]:
        """Hold the folder, which is made: two runs in one are impossible, and a killed run leaves no stale lock.

        Where the file system has no locks, `say` gets a warning.

        Raises:
            BadConfig: another process holds it.
            CannotWrite: no lock can be made there.
        """
        path = self.path / LOCK
        with writing(path):
            self.path.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise BadConfig(f"{str(path)!r} is no file; move it away.")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadConfig(
                    f"another process is running in {str(self.path)!r}; wait for it or choose another run.name."
                ) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    with writing(path):
                        raise
                say(f"{str(self.path)!r} lies on a file system without locks; see that no other run is started in it.")
            yield
        finally:
            os.close(file)

    def sweep(self, recipe: Recipe) -> None:
        """Put right what a killed run left half-written; the lock must be held."""
        samples = sorted((self.path / "samples").glob("*"))
        made = [each.folder for _, each in self.collected(recipe)]
        pairs = [folder for each in made for folder in (each.parent, each, each / "clips")]
        judged = [self.path / "evaluations", self.path / "evaluations" / ON_THE_WAY]
        sweep([self.path, self.path / "checkpoints", *judged, *samples, *pairs])

    def collected(self, recipe: Recipe) -> list[tuple[int, Collected]]:
        """What collecting stages have written here, with their numbers."""
        made = ((index, stage.collected(self.path, self.id)) for index, stage in enumerate(recipe.stages))
        return [(index, each) for index, each in made if each]

    def lost_pairs(self, recipe: Recipe) -> list[str]:
        """A sentence for each folder of collected pairs that is not as it was, once no stage is left to read it."""
        told = []
        for _, made in self.collected(recipe):
            try:
                made.verify(made.steps)
            except BadData as error:
                told.append(f"{error} No stage is left to read it.")
        return told

    def clear_if_untouched(self, recipe: Recipe) -> None:
        """Give the name back if the run was refused before it made anything but its first checkpoint."""
        made = [self.path / name for name in ("ledger.jsonl", "metrics.jsonl", "evaluations", "samples", "final")]
        pairs = [each for _, each in self.collected(recipe)]
        # What does not go stays; the error that brought us here is the one to tell.
        with suppress(OSError):
            if not any(os.path.lexists(path) for path in made) and not any(each.is_ours for each in pairs):
                self.checkpoints.clear()
                self.config.unlink()
                self.status.unlink(missing_ok=True)

    def refuse_remains(self) -> None:
        """See that nothing tells of a run that has been further than its beginning.

        Raises:
            BadCheckpoint: something does, so that starting over would lose it.
        """
        for path in (self.metrics.path, self.ledger.path, self.path / "evaluations"):
            if os.path.lexists(path):
                raise BadCheckpoint(
                    f"{str(self.path)!r} holds {path.name} of a run, but its checkpoints are gone; put them back, or "
                    "start a new run."
                )

    def go_back(self, state: State) -> list[str]:
        """Let the files be what a checkpoint has sealed, so that the steps about to be repeated can write theirs again.

        Returns:
            A sentence for each that was damaged and mended.

        Raises:
            BadData: an evaluation is not what was sealed; gates and report would tell something else.
        """
        for label, sealed in state.evaluations.items():
            self.evaluations[label] = sealed
            self.evaluation(label)
        self.rows = list(state.ledger)
        position = (state.stage, state.next)
        self._drop_looks()
        told = [self.ledger.restore(self.rows)]
        for journal, seal in ((self.metrics, state.metrics), (self.samples, state.samples)):
            told.append(journal.go_back(seal, lambda row: _before(row, position)))
        return [sentence for sentence in told if sentence]

    def _drop_looks(self) -> None:
        """Remove evaluations on the way that the checkpoint has not sealed: their steps are done again, if at all."""
        for path in (self.path / "evaluations" / ON_THE_WAY).glob("*@*.json"):
            key, step = f"{ON_THE_WAY}/{path.stem}", path.stem.rpartition("@")[2]
            if step.isdecimal() and key not in self.evaluations:
                path.unlink()

    def record(self, stage: Stage) -> None:
        """Add a finished stage to the ledger."""
        row = stage.dump()
        self.ledger.add(row)
        self.rows.append(row)

    def see_it_there(self) -> None:
        """See that the folder has not gone, before anything makes a part of it anew.

        Raises:
            CannotWrite: it has.
        """
        if not self.config.is_file():
            raise CannotWrite(self.path, "config.json is gone", "put the folder back")

    def sync(self) -> None:
        """See that the names of what has been made in the folder are on the disk."""
        with writing(self.path):
            sync(self.path)

    def judged(self, label: str) -> None:
        """Remember what the evaluation of `label` holds, as it has just been written.

        Raises:
            CannotWrite: it cannot be read again.
        """
        path = self._evaluation(label)
        with writing(path):
            self.evaluations[label] = digest(path)

    def evaluation(self, label: str) -> Evaluation:
        """What evaluating the weights `label` found.

        Raises:
            BadData: the file is not the one that was written.
        """
        path, found = self._evaluation(label), ""
        with suppress(OSError):  # gone, or something else than a file
            found = digest(path)
        if found != self.evaluations[label]:
            raise BadData(
                f"{str(path)!r} is not the evaluation that was written: it was changed, damaged or "
                "removed, and gates are judged from it; restore it, or start a new run."
            )
        return Evaluation.read(json.loads(path.read_bytes()), str(path))

    def kept_before(self, stage: int) -> str:
        """Label of the evaluation of the weights that entered a stage.

        That is the last one that this recipe's `evaluate` judged and no gate refused. What a stage `evaluate` has
        measured is none of them: it may have had other prompts, seeds or members.
        """
        rows = [row for row in self.rows if row["index"] < stage and row["judged"]]
        return next((row["stage"] for row in reversed(rows) if row["gate"]["verdict"] != "failed"), "base")

    def _evaluation(self, label: str) -> Path:
        return self.path / "evaluations" / f"{label}.json"


def _before(row: Json, position: tuple[int, int]) -> bool:
    index, step = row.get("index"), row.get("step")
    return isinstance(index, int) and isinstance(step, int) and (index, step) < position
