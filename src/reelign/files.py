"""Files that are whole or absent: a temporary name, fsync, rename."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reelign.errors import RunStopped


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place once the block ends well: readers see the old or the new.

    Whatever happens, no temporary file stays behind, and what stood at `path` is whole. Makes the folder.

    Raises:
        RunStopped: the disk is full, or the place cannot be written.

    Example:
        >>> import tempfile
        >>> note = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with replacing(note) as temporary:
        ...     _ = temporary.write_text("done")
        >>> note.read_text()
        'done'
    """
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        with _said(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """The same for a folder, which the block makes and fills; what stood at `path` goes when the new one is whole.

    Raises:
        RunStopped: the disk is full, or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        with _said(path):
            yield temporary
            shutil.rmtree(path, ignore_errors=True)
            temporary.replace(path)
            sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """Turn an error of the system into one sentence."""
    try:
        yield
    except OSError as error:
        raise RunStopped(
            f"cannot write {path}: {error.strerror or error}; make room there or choose another place."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole with UTF-8 text; lone surrogates, which have no UTF-8, become question marks.

    Raises:
        RunStopped: the disk is full, or the place cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written below a folder in which nobody else is writing."""
    for left in list(folder.rglob(".*.tmp-*")):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)
