"""Files of one JSON object a line that only grow, and how they go back to what a checkpoint has sealed."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from reelign.files import append, aside, sync, write_text, writing
from reelign.parts import Settings

Json = dict[str, Any]


class Seal(Settings):
    """How long a file was, and the sha256 of what it held then."""

    bytes: int = Field(default=0, ge=0)
    sha256: str = hashlib.sha256().hexdigest()


class Journal:
    """Owns one file, and knows the sha256 of all it has written without reading it again."""

    def __init__(self, path: Path) -> None:
        """Name the file; `go_back` comes before the first row of a run that is resumed."""
        self.path, self._length, self._hash = path, 0, hashlib.sha256()

    def add(self, row: Json) -> None:
        """Add a row.

        Raises:
            CannotWrite: what stands in the file before is intact, perhaps with half a row behind it.
        """
        line = _line(row)
        with writing(self.path):
            append(self.path, line)
        self._length += len(line)
        self._hash.update(line)

    def seal(self) -> Seal:
        """What has been written, which is on the disk then.

        Raises:
            CannotWrite: it does not get there.
        """
        if self._length:
            with writing(self.path):
                sync(self.path)
        return Seal(bytes=self._length, sha256=self._hash.hexdigest())

    def go_back(self, seal: Seal, wanted: Callable[[Json], bool]) -> str:
        """Cut the file back to what was sealed, as the rows behind it will be written again.

        If it does not begin with what was sealed, the rows that can be read and are `wanted` stay.

        Returns:
            A sentence about the damage, or nothing.
        """
        if self._is_cut_to(seal):
            return ""
        # A last line without its end was cut off, even where what is left of it reads as a row.
        lines = [line + b"\n" for line in (self._content() or b"").split(b"\n")[:-1]]
        kept = [line for line in lines if (row := parsed(line)) is not None and wanted(row)]
        return self._mend(b"".join(kept), f"{len(kept)} rows of it can be read and are kept")

    def ends_with(self, seal: Seal) -> bool:
        """Whether the file holds what was sealed and nothing behind it; nothing is changed."""
        return self._begins_with(seal) and (self.path.stat().st_size if self.path.exists() else 0) == seal.bytes

    def holds(self, rows: Iterable[Json]) -> bool:
        """Whether the file holds just these rows; nothing is changed."""
        return (self._content() or b"") == b"".join(map(_line, rows))

    def restore(self, rows: Iterable[Json]) -> str:
        """Make the file hold just these rows; rows behind them go without a word, as they will be written again.

        Returns:
            A sentence about the damage, or nothing.
        """
        expected = b"".join(map(_line, rows))
        if self._is_cut_to(Seal(bytes=len(expected), sha256=hashlib.sha256(expected).hexdigest())):
            return ""
        return self._mend(expected, "its rows are written again from there")

    def _is_cut_to(self, seal: Seal) -> bool:
        """Cut the file back to what was sealed, if it begins with that."""
        if not self._begins_with(seal):
            return False
        if self.path.exists():
            with writing(self.path):
                os.truncate(self.path, seal.bytes)
        self._length = seal.bytes
        return True

    def _begins_with(self, seal: Seal) -> bool:
        """Whether the file begins with what was sealed; leaves the hash where that ends."""
        self._length, self._hash = 0, hashlib.sha256()
        if not os.path.lexists(self.path):
            return seal.bytes == 0
        if self.path.is_symlink() or not self.path.is_file():
            return False
        with self.path.open("rb") as file:
            left = seal.bytes
            while left and (chunk := file.read(min(left, 1 << 20))):
                self._hash.update(chunk)
                left -= len(chunk)
        return left == 0 and self._hash.hexdigest() == seal.sha256

    def _content(self) -> bytes | None:
        """What the file holds; None where there is none, or something else than a file."""
        return self.path.read_bytes() if self.path.is_file() and not self.path.is_symlink() else None

    def _mend(self, content: bytes, how: str) -> str:
        """Make the file hold `content`; if anything of what it held before is lost by that, it stays beside it."""
        before, beside = self._content(), ""
        if os.path.lexists(self.path) and (before is None or not content.startswith(before)):
            beside = f"; as it was found it is now {aside(self.path).name}"
        write_text(self.path, content.decode())
        self._take(content)
        return f"{self.path.name} is not what the checkpoint has sealed; {how}{beside}."

    def _take(self, content: bytes) -> None:
        self._length, self._hash = len(content), hashlib.sha256(content)


def _line(row: Json) -> bytes:
    # In ASCII: no line can end in the middle of a letter, nor hold one that some reader takes for a line's end.
    return json.dumps(row).encode() + b"\n"


def parsed(line: bytes) -> Json | None:
    """The row of a line; None where it holds none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
