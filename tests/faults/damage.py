"""What can become of a file or folder while nobody looks."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

Damage = Callable[[Path, Path], None]
"""Gets the path, and the same path in another run."""


def remove(path: Path) -> None:
    """Whatever stands there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove(path: Path, other: Path) -> None:
    remove(path)


def _truncate(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path, other: Path) -> None:
    os.truncate(path, 0)


def _flip(share: float, path: Path, other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= 0x15
    path.write_bytes(data)


def _swap(path: Path, other: Path) -> None:
    remove(path)
    if other.is_dir():
        shutil.copytree(other, path)
    else:
        shutil.copy(other, path)


def _folder(path: Path, other: Path) -> None:
    remove(path)
    path.mkdir()


def _file(path: Path, other: Path) -> None:
    remove(path)
    path.touch()


def _fifo(path: Path, other: Path) -> None:
    remove(path)
    os.mkfifo(path)


def _nowhere(path: Path, other: Path) -> None:
    remove(path)
    path.symlink_to("nowhere")


FILES: dict[str, Damage] = {
    "removed": _remove, "cut in half": _truncate, "emptied": _empty, "another run's": _swap, "a folder": _folder,
    "a fifo": _fifo, "a link to nowhere": _nowhere,
    **{f"a byte flipped at {share:.0%}": partial(_flip, share) for share in (0.0, 0.1, 0.5, 0.9, 1.0)},
}  # fmt: skip
FOLDERS: dict[str, Damage] = {
    "removed": _remove, "emptied": _folder, "another run's": _swap, "a file": _file, "a link to nowhere": _nowhere,
}  # fmt: skip


def state(path: Path) -> object:
    """What stands at a path, to see whether it has changed."""
    if path.is_symlink():
        return os.readlink(path)
    if path.is_dir():
        return [(child.name, state(child)) for child in sorted(path.iterdir())]
    return path.read_bytes() if path.is_file() else path.lstat().st_mode if os.path.lexists(path) else None
