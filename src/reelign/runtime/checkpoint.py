"""Checkpoints that are whole or absent: safetensors and JSON in a folder that appears by one rename.

    checkpoints/<label>-<step>/
        learner.safetensors     weights, optimizer moments, averages
        reference.safetensors   frozen weights that the stage keeps, by role
        method.safetensors      what the stage's method remembers, if it does
        state.json              position, fingerprint of the model, sha256 of every file and of itself
    checkpoints/LATEST          the name of the newest one

Nothing is pickled. Draws and noises have names, so a step number is all the random state and data position there is; a
step is a transaction, so no rollout is ever pending.
"""

import errno
import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from reelign.errors import BadCheckpoint, RunStopped
from reelign.files import sync, write_text

SCHEMA = 1
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".distcp")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds: named groups of tensors, and a position as plain JSON values."""

    tensors: dict[str, dict[str, Tensor]]
    position: dict[str, Any]


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Twelve hex digits of the names and shapes of the trainable weights."""
    text = json.dumps([[name, list(p.shape)] for name, p in weights.items()])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def save(root: Path, name: str, model: str, content: Checkpoint, keep: tuple[str, ...] = ()) -> Path:
    """Write a checkpoint and make it the latest; older ones go, except those named in `keep`.

    Raises:
        RunStopped: the disk is full; the checkpoint before is intact and nothing half-written stays.
    """
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / f".{name}.tmp-{uuid.uuid4().hex[:8]}"
    target = root / name
    try:
        temporary.mkdir()
        digests = {}
        for group, tensors in content.tensors.items():
            if tensors:
                file = temporary / f"{group}.safetensors"
                save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, file)
                digests[file.name] = _finish(file)
        state = {"schema": SCHEMA, "model": model, "position": content.position, "sha256": digests}
        path = temporary / "state.json"
        path.write_text(json.dumps({**state, "self": _seal(state)}, indent=1))
        _finish(path)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
        write_text(root / "LATEST", name)
    except (OSError, SafetensorError, RunStopped) as error:
        reason = error.__cause__ or error
        full = getattr(reason, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space" in str(reason)
        if not full:
            raise
        before = latest(root)
        intact = f"; the checkpoint {before.name!r} is intact" if before else ""
        raise RunStopped(
            f"the disk is full while saving {str(target)!r}{intact}. Free some space and go on with --resume."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in root.iterdir():
        if old.is_dir() and old.name != name and old.name not in keep:
            shutil.rmtree(old)
    return target


def _finish(file: Path) -> str:
    """Flush a file to the disk and give its sha256."""
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    sync(file)
    return digest


def _seal(state: Mapping[str, Any]) -> str:
    """The sha256 of a state without its own entry."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def latest(root: Path) -> Path | None:
    """The newest checkpoint of a run, if it has one.

    Raises:
        BadCheckpoint: the pointer names a folder that is gone; starting over in silence would lose the run.
    """
    pointer = root / "LATEST"
    if not pointer.is_file():
        return None
    folder = root / pointer.read_text(encoding="utf-8").strip()
    if not folder.is_dir():
        raise BadCheckpoint(f"{str(folder)!r} is gone, but {str(pointer)!r} names it; put it back, or start a new run.")
    return folder


def load(folder: Path, model: str) -> Checkpoint:
    """Read a checkpoint after checking every byte of it.

    Raises:
        BadCheckpoint: missing, damaged, pickled, newer than this version, or of another model.
    """
    if folder.suffix in PICKLES or any(p.suffix in PICKLES for p in folder.glob("*")):
        raise BadCheckpoint(
            f"{str(folder)!r} holds pickled weights, which can run code when loaded; "
            "give a Reelign checkpoint folder (safetensors)."
        )
    path = folder / "state.json"
    if not path.is_file():
        raise BadCheckpoint(
            f"{str(folder)!r} is no checkpoint: it has no state.json. Give a folder below checkpoints/ of a run."
        )
    damaged = f"{str(path)!r} is damaged; use an older checkpoint."
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadCheckpoint(damaged) from error
    if not isinstance(state, dict) or not isinstance(state.get("schema"), int):
        raise BadCheckpoint(damaged)
    # Asked before the seal: a newer version may seal in another way.
    if state["schema"] > SCHEMA:
        raise BadCheckpoint(
            f"{str(folder)!r} has schema {state['schema']}, but this version reads up to {SCHEMA}; update Reelign."
        )
    if state.pop("self", None) != _seal(state):
        raise BadCheckpoint(damaged)
    if state["model"] != model:
        raise BadCheckpoint(
            f"{str(folder)!r} was made for another model (weights {state['model']}, here {model}); "
            "use the recipe it was made with."
        )
    tensors = {}
    for name, digest in state["sha256"].items():
        file = folder / name
        if not file.is_file():
            raise BadCheckpoint(f"{str(folder)!r} lacks {name}; the copy is incomplete.")
        with file.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
        if found != digest:
            raise BadCheckpoint(
                f"{str(file)!r} is damaged: its sha256 is not the one in state.json. Use an older checkpoint."
            )
        tensors[file.stem] = load_file(file)
    return Checkpoint(tensors, state["position"])
