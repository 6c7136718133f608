"""Tensors that are computed once and kept: in main memory within a bound, and in files that runs share.

    <root>/3f/<64 hex digits>.reelign.safetensors     one value, and the sha256 of what it is

A value is a function of its key alone, so a store decides what is computed again and never what comes out. Any number
of processes may use a folder at a time: files appear whole, by a rename, and one that goes is computed again.
"""

import errno
import hashlib
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from reelign.errors import CannotWrite, reason
from reelign.files import is_left, replacing, usual_mode, writing
from reelign.names import Root
from reelign.pages import Pages
from reelign.settings import Settings

log = logging.getLogger(__name__)

GIB = 2**30
SPARE = 10 * GIB
"""Left free on the disk for what a run must write, or a twentieth of the disk where that is less."""
HEADER = 512
"""Bytes of a file beside its value, at most."""
STALE = 3600
"""Seconds after which a half-written file is a killed process's."""
MOST = 2**15
"""Values in main memory: half of the pieces that Linux lets a process's memory have."""
ENDING = ".reelign.safetensors"
NAME = re.compile(r"[0-9a-f]{64}" + re.escape(ENDING))
MARK = {"made_by": "reelign store"}
"""In the header of every file, which begins with it; nothing without it is removed."""


class StoreConfig(Settings):
    """Where text features and the latents of clips are kept, so that each is computed once."""

    path: Root | None = None
    """Folder of their files, which runs share. Without one it is `.store` in `run.root`, and a model as small as the
    packaged one writes none, since it computes faster than a disk reads."""
    ram_gib: float = Field(default=2.0, ge=0, le=2**14)
    """The most that lies in main memory; what was used longest ago goes first, and is read or computed again."""
    disk_gib: float = Field(default=50.0, ge=0, le=2**20)
    """The most that lies in files, a tenth more for each further process that writes there; 0 writes none. A disk that
    is nearly full gets none either."""


class Memory:
    """A store in main memory alone."""

    def __init__(self, gib: float = 2.0) -> None:
        self._limit, self._size = int(gib * GIB), 0
        self._known: dict[str, Pages] = {}
        """From the value that was used longest ago to that used last."""
        self._lock = Lock()

    def get(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        """The value of `key`, in main memory; `make` computes it where it is not known.

        `key` says all that the value hangs on. The tensor is shared with whoever asks next: it is not to be written to.
        """
        with self._lock:
            found = self._known.pop(key, None)
            if found is not None:
                self._known[key] = found
                return found.tensor()
        computed = make().detach()
        made = Pages(computed.shape, computed.dtype)
        made.tensor().copy_(computed)
        with self._lock:
            before = self._known.pop(key, None)  # of another thread
            self._size += made.size - (before.size if before else 0)
            self._known[key] = made
            while self._size > self._limit or len(self._known) > MOST:
                self._size -= self._known.pop(next(iter(self._known))).size
        return made.tensor()


class DiskStore:
    """A store in files, and in main memory what was used last. Owns the files in `root` that carry its mark."""

    def __init__(self, root: Path, ram_gib: float, disk_gib: float) -> None:
        self._root, self._memory, self._limit = root, Memory(ram_gib), int(disk_gib * GIB)
        self._size = -1
        """Bytes of all files at the last look, and of those written since; before the first look -1."""
        self._writes = disk_gib > 0
        self._lock = Lock()

    def get(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        """See `Memory.get`. A place that cannot be written is said once, and nothing more is written there."""
        return self._memory.get(key, partial(self._fetch, key, make))

    def _fetch(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        name = hashlib.sha256(key.encode()).hexdigest()
        path = self._root / name[:2] / f"{name}{ENDING}"
        found = _read(path, name)
        if found is None:
            found = make().detach().cpu().contiguous()
            self._write(path, name, found)
        return found

    def _write(self, path: Path, name: str, value: Tensor) -> None:
        size = value.nbytes + HEADER
        if not self._writes or size > self._limit or _is_taken(path):
            return
        try:
            with self._lock, writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._make_room(size)
            # Not synced: what a power cut takes does not verify, and is computed again.
            with replacing(path, lasting=False) as temporary, usual_mode(temporary):
                save_file({"value": value, "sha256": _digest(name, value)}, temporary, metadata=MARK)
        except CannotWrite as error:
            self._writes = False
            then = "; until the next start what is encoded stays in main memory"
            log.warning("%s", CannotWrite(error.path, error.reason, error.remedy, then))

    def _make_room(self, more: int) -> None:
        """Count what is about to be written; beyond the bound, a tenth goes with what was used longest ago."""
        disk = shutil.disk_usage(self._root)
        if disk.free - more < min(SPARE, disk.total // 20):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._size < 0 or self._size + more > self._limit:
            files = sorted(_files(self._root))
            self._size = sum(size for _, size, _ in files)
            goal = self._limit * 9 // 10 if self._size + more > self._limit else self._limit
            for _, size, path in files:
                if self._size + more <= goal:
                    break
                if _is_ours(path):
                    path.unlink(missing_ok=True)
                    self._size -= size
        self._size += more


Store = Memory | DiskStore
"""Values by key."""


def opened(config: StoreConfig, root: Path | None) -> Store:
    """The store of a config; `root` is where its files lie if it names no place, and None keeps to main memory then."""
    place = Path(config.path) if config.path else root
    return DiskStore(place, config.ram_gib, config.disk_gib) if place else Memory(config.ram_gib)


def fingerprint(device: torch.device, *of: object) -> str:
    """A digest of all that a network's output hangs on beside its input.

    Args:
        device: where it computes; another kind of device or number of threads rounds otherwise.
        of: its files and settings, as values that say themselves the same whenever they are the same.
    """
    if device.type == "cpu":
        where = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    else:
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return hashlib.sha256(repr((torch.__version__, where, *of)).encode()).hexdigest()


def _digest(name: str, value: Tensor) -> Tensor:
    """The sha256 of a value and its place, as 32 bytes."""
    total = hashlib.sha256(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
    total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(total.digest()), dtype=torch.uint8)


def _read(path: Path, name: str) -> Tensor | None:
    """The value of a file; none where there is no file, or one that is not as it was written."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        found = load(path.read_bytes())
        if not torch.equal(found["sha256"], _digest(name, found["value"])):
            raise ValueError("its sha256 is not the one in it")
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, LookupError, ValueError, TypeError, RuntimeError) as error:
        log.warning("%s is damaged and made again: %s.", path, reason(error))
        return None
    with suppress(OSError):  # somebody else's folder is read as well
        os.utime(path)
    return found["value"]


def _is_taken(path: Path) -> bool:
    """Whether something else than a file stands there, which no store has put there."""
    return path.is_symlink() or (path.exists() and not path.is_file())


def _files(root: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file was used last, its bytes, and its path; what killed processes left half-written goes."""
    for folder in root.glob("[0-9a-f][0-9a-f]"):
        for entry in os.scandir(folder):
            with suppress(FileNotFoundError):  # another process's
                if not entry.is_file(follow_symlinks=False):
                    continue
                about, path = entry.stat(follow_symlinks=False), Path(entry.path)
                if NAME.fullmatch(entry.name):
                    yield about.st_mtime, about.st_size, path
                elif is_left(entry.name) and ENDING in entry.name and time.time() - about.st_mtime > STALE:
                    path.unlink()


def _is_ours(path: Path) -> bool:
    """Whether a file begins as those of a store do."""
    mark = ",".join(f'"{key}":"{value}"' for key, value in MARK.items()).encode()
    with suppress(OSError), path.open("rb") as file:
        return mark in file.read(256)
    return False
