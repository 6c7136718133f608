"""Copies of files for another folder, and a digest that tells whether a file changed."""

import hashlib
import os
import re
import shutil
import struct
from pathlib import Path

from reelign.pretrained.part import Part
from reelign.pretrained.paths import size_of

LINKED = 2**20
"""Bytes from which a file is linked rather than copied."""
WHOLE = 2**26
"""Bytes up to which a digest reads a whole file."""
SAMPLES, SAMPLE = 64, 2**14
"""Places of a larger file that a digest reads, and the bytes of each."""
DATA = re.compile(r"\w[\w.-]*\.(json|model|txt|jinja)")
"""Names of the files of parts without weights."""


def files_of(part: Part | Path) -> tuple[Path, ...]:
    """The files that make up a part; of one without weights, the data files that stock libraries write."""
    if isinstance(part, Path):
        return tuple(sorted(p for p in part.iterdir() if DATA.fullmatch(p.name)))
    names = ("config.json", *((part.weights.index,) if part.weights.index else ()), *part.weights.files)
    return tuple(part.folder / name for name in names)


def copy(source: Path, target: Path) -> None:
    """Copy a file's contents, not its mode; where the file system can, a large one is linked instead.

    A hard link shares contents and mode with its source, so only a file of the mode that new ones get is linked.
    Weights are replaced as whole files and never written in place, so neither side changes with the other.
    """
    if target.exists() and os.path.samefile(source, target):
        return
    target.unlink(missing_ok=True)
    target.touch()
    there = source.stat()
    if there.st_size >= LINKED and there.st_mode == target.stat().st_mode:
        target.unlink()
        try:
            os.link(source.resolve(), target)
        except OSError:
            pass  # another file system, one without links, or a file of another user
        else:
            return
    shutil.copyfile(source, target)


def digest(path: Path) -> str:
    """sha256 over a file's size and contents.

    Of one beyond 64 MiB the beginning is read, as far as a safetensors header goes, and `SAMPLES` places evenly spread
    over it: other weights of the same names and shapes differ in nearly all.

    Raises:
        BadCheckpoint: see `size_of`.
    """
    size = size_of(path)
    total = hashlib.sha256(f"{size}\0".encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            total.update(file.read())
            return total.hexdigest()
        total.update(file.read(_header(file.read(8))))
        for k in range(SAMPLES):
            file.seek((size - SAMPLE) * k // (SAMPLES - 1))
            total.update(file.read(SAMPLE))
    return total.hexdigest()


def _header(start: bytes) -> int:
    """Bytes of a safetensors header, from the eight that begin the file; at most what is read of any file."""
    return min(struct.unpack("<Q", start)[0], WHOLE)
