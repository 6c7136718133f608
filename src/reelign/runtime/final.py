"""The exported model: whole at every moment, and known for what a run has put there."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reelign.errors import CannotWrite
from reelign.files import aside, digest, replacing_folder, write_text


class Final:
    """Owns `final/` of a run folder, and `final.json`: of which checkpoint it is, and the sha256 of its files."""

    def __init__(self, folder: Path) -> None:
        self.path, self._record = folder / "final", folder / "final.json"

    def is_of(self, seal: str) -> bool:
        """Whether it is whole, perhaps with something of the user's beside it, and of the checkpoint with that seal."""
        made, here = self._made(), _readable(self.path)
        files = made.get("files")
        whole = here is not None and isinstance(files, dict) and bool(files) and files.items() <= here.items()
        return whole and made.get("of") == seal

    def write(self, fill: Callable[[Path], object], seal: str) -> str:
        """Let `fill` make it from the checkpoint with that seal.

        Returns:
            A sentence if what stood there was not what this run had put there, and is now beside it; else nothing.

        Raises:
            CannotWrite: the disk is full, or one of the two places cannot be written.
        """
        if self._record.is_dir():  # seen before anything is put aside for what could not be recorded
            raise CannotWrite(self._record, os.strerror(errno.EISDIR), "move away what stands there")
        made, beside = self._made(), ""
        ours = [tree for tree in (made.get("files"), made.get("before")) if isinstance(tree, dict)]
        if os.path.lexists(self.path) and _readable(self.path) not in ours:
            beside = f"final/ was not as it had been exported; as it was found it is now {aside(self.path).name}/."
        with replacing_folder(self.path) as temporary:
            fill(temporary)
            # Written before the rename, so that whatever a kill leaves at that name is known as this run's.
            content = {"of": seal, "files": _tree(temporary), "before": made.get("files")}
            write_text(self._record, json.dumps(content, indent=1))
        return beside

    def _made(self) -> dict[str, Any]:
        """What the record says; nothing if it cannot be read, as it can be made again."""
        try:
            record = json.loads(self._record.read_bytes()) if self._record.is_file() else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}


def _readable(folder: Path) -> dict[str, str] | None:
    """The same, or None where there is no folder, or one that cannot be read."""
    if folder.is_symlink() or not folder.is_dir():
        return None
    try:
        return _tree(folder)
    except OSError:
        return None


def _tree(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder, by path."""
    return {str(p.relative_to(folder)): digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}
