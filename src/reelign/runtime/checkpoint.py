"""Checkpoints that are whole or absent: safetensors and JSON in a folder that appears by one rename.

    checkpoints/<label>-<step>/
        learner.safetensors     weights, optimizer moments, averages
        reference.safetensors   frozen weights that the stage keeps, by role
        method.safetensors      what the stage's method remembers, if it does
        state.json              run, number, position, fingerprint of the model, sha256 of every file and of itself

The newest is found by looking: the one with the highest number that verifies. Nothing is pickled. Draws and noises have
names, so a step number is all the random state and data position there is; a step is a transaction, so no rollout is
ever pending.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from reelign.errors import BadCheckpoint
from reelign.files import digest, discard, replacing_folder, usual_mode
from reelign.runtime.header import SCHEMA, Damaged, Header, kept, read


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds: named groups of tensors, and a position as plain JSON values."""

    tensors: dict[str, dict[str, Tensor]]
    position: dict[str, Any]
    needs: tuple[str, ...] = ()
    """Names of other checkpoints that must stay as long as this one."""


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Twelve hex digits of the names and shapes of the trainable weights."""
    text = json.dumps([[name, list(p.shape)] for name, p in weights.items()])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Store:
    """The checkpoints of one run. Owns the folders in `root` that this run made, and touches no others."""

    def __init__(self, root: Path, run: str) -> None:
        self.root, self.run = root, run
        self._passed_over: set[str] = set()
        self._last = 0
        """The highest number that was seen or given: one whose header cannot be read for once keeps its own."""

    def save(self, name: str, model: str, content: Checkpoint) -> Path:
        """Write a checkpoint, the newest from then on; of older ones stay the one before, and what both need.

        Raises:
            CannotWrite: the disk is full or read-only; the checkpoint before is intact and nothing half-written stays.
        """
        self._headers()
        number = self._last + 1
        with replacing_folder(self.root / name) as temporary:
            temporary.mkdir()
            digests = {}
            for group, tensors in content.tensors.items():
                if tensors:
                    file = temporary / f"{group}.safetensors"
                    with usual_mode(file):
                        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, file)
                    digests[file.name] = digest(file)
            header = Header(
                name=name,
                run=self.run,
                number=number,
                model=model,
                needs=content.needs,
                position=content.position,
                sha256=digests,
            )
            state = {"schema": SCHEMA, **dict(header), "self": header.seal}
            (temporary / "state.json").write_text(json.dumps(state, indent=1))
        self._passed_over.discard(name)
        self._last = number
        self.prune()
        return self.root / name

    def newest(self, model: str) -> tuple[Checkpoint, list[str]] | None:
        """The newest checkpoint that verifies, with a sentence for each damaged one; None where there is none at all.

        Raises:
            BadCheckpoint: there are some, but none that can be read; or one is of another run, model or version.
        """
        damaged: list[str] = []
        headers = sorted(self._headers(damaged), key=lambda h: -h.number)
        for header in headers:
            try:
                return self._read(header, model), damaged
            except Damaged as error:
                self.pass_over(header.name)
                damaged.append(str(error))
        if damaged:
            raise BadCheckpoint(f"{damaged[0].rstrip('.')}; none before it is left, so restore it or start a new run.")
        return None

    def peek(self) -> Header | None:
        """What the newest checkpoint says of itself; its tensors are not read."""
        return max(self._headers([]), key=lambda h: h.number, default=None)

    def load(self, name: str, model: str) -> Checkpoint:
        """Read a checkpoint by name, after checking every byte of it.

        Raises:
            BadCheckpoint: missing, damaged, pickled, of another version, run or model.
        """
        return self._read(read(self.root / name, self.run), model)

    def pass_over(self, name: str) -> None:
        """Neither count one among the newest nor remove it: it is damaged, or no longer what the run goes on from."""
        self._passed_over.add(name)

    def clear(self) -> None:
        """Remove this run's checkpoints, and the folder if nothing else is in it."""
        for header in self._headers():
            discard(self.root / header.name)
        if self.root.is_dir() and not any(self.root.iterdir()):
            self.root.rmdir()

    def prune(self) -> None:
        """Remove what is older than the newest two and not needed by them; a kill may have kept a save from it."""
        counted = [h for h in self._headers() if h.name not in self._passed_over]
        stay = kept(counted)
        for header in counted:
            if header.name not in stay:
                # Some network file systems do not let go of what is mapped; the next save tries again.
                with suppress(OSError):
                    discard(self.root / header.name)

    def _headers(self, damaged: list[str] | None = None) -> list[Header]:
        """Of all checkpoints that say what they are; those that do not go into `damaged`, or are left out of account.

        Raises:
            BadCheckpoint: with `damaged`, for one of another run or version: going on beside it would be a guess.
        """
        headers = []
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            if folder.name.startswith(".") or not {"state.json", "learner.safetensors"} & {
                p.name for p in folder.glob("*")
            }:
                continue
            try:
                header = read(folder, self.run)
                # Under another name it is somebody's copy.
                if header.name == folder.name:
                    headers.append(header)
                    self._last = max(self._last, header.number)
            except Damaged as error:
                self.pass_over(folder.name)
                if damaged is not None:
                    damaged.append(str(error))
            except BadCheckpoint:
                if damaged is not None:
                    raise
        return headers

    def _read(self, header: Header, model: str) -> Checkpoint:
        folder = self.root / header.name
        if header.model != model:
            raise BadCheckpoint(
                f"{str(folder)!r} was made for another model (weights {header.model}, here {model}); "
                "use the recipe it was made with."
            )
        tensors = {}
        for name, expected in header.sha256.items():
            file = folder / name
            if not file.is_file():
                raise Damaged(f"{str(folder)!r} lacks {name}.")
            try:
                actual = digest(file)
            except OSError as error:
                raise Damaged(f"{str(file)!r} cannot be read ({error.strerror}).") from error
            if actual != expected:
                raise Damaged(f"{str(file)!r} is damaged: its sha256 is not the one in state.json.")
            tensors[file.stem] = load_file(file)
        return Checkpoint(tensors, header.position, header.needs)
