"""What a checkpoint says of itself, `state.json`: read and compared without its tensors, and without torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reelign.errors import BadCheckpoint
from reelign.files import seal
from reelign.parts import Settings

SCHEMA = 2
KEPT = 2
"""So many of the newest checkpoints are kept, with those they need."""
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".distcp")


class Header(Settings):
    """What `state.json` of a checkpoint says, beside its schema and its seal."""

    name: str
    run: str
    number: int
    """The newest has the highest."""
    model: str
    needs: tuple[str, ...]
    position: dict[str, Any]
    sha256: dict[str, str]

    @property
    def seal(self) -> str:
        """The sha256 of all this, and so of all files: checkpoints with one seal are equal."""
        return seal(dict(self))


def kept(headers: Sequence[Header]) -> set[str]:
    """Names of those that stay: the newest two, and what they need."""
    newest = sorted(headers, key=lambda h: -h.number)[:KEPT]
    return {name for h in newest for name in (h.name, *h.needs)}


class Damaged(BadCheckpoint):
    """A checkpoint that is not what was written; an older one may be."""


def read(folder: Path, run: str) -> Header:
    """The header of a checkpoint of a run; all but its tensors is checked.

    Raises:
        Damaged: it is not what was written.
        BadCheckpoint: it holds pickled weights, or is of another version or run.
    """
    pickled = [p.name for p in folder.glob("*") if p.suffix in PICKLES]
    if pickled:
        raise BadCheckpoint(
            f"{str(folder)!r} holds pickled weights ({pickled[0]}), which can run code when loaded; "
            "take them out of there."
        )
    path = folder / "state.json"
    if not path.is_file():
        raise Damaged(f"{str(folder)!r} is no checkpoint: it has no state.json.")
    try:
        state = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{str(path)!r} is damaged.") from error
    schema = state.get("schema") if isinstance(state, dict) else None
    if type(schema) is not int or schema < 1:
        raise Damaged(f"{str(path)!r} is damaged.")
    # Asked before the seal: another version may seal in another way.
    if schema != SCHEMA:
        raise BadCheckpoint(
            f"{str(folder)!r} has schema {schema}, but this version of Reelign reads {SCHEMA}; "
            + ("update it." if schema > SCHEMA else "finish the run with the version it was started with.")
        )
    try:
        header = Header.model_validate({k: v for k, v in state.items() if k not in ("schema", "self")})
    except ValidationError as error:
        raise Damaged(f"{str(path)!r} is damaged.") from error
    if state.get("self") != header.seal:
        raise Damaged(f"{str(path)!r} is damaged.")
    if header.run != run:
        raise BadCheckpoint(f"{str(folder)!r} is a checkpoint of another run; move it out of there.")
    return header
