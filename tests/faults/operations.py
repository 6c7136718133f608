"""File operations below a folder, numbered from 0, and what can be made to happen just before one of them.

Watched are the interpreter's audit events (opening to write, mkdir, rename, remove, rmdir, rmtree, truncate, link,
chmod, utime, flock), each write and fsync, and the writers that are not Python: safetensors and libav. It is for
children that end soon: none of it can be taken back.
"""

import builtins
import errno
import io
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CREATING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
READING = ("read", "os.listdir", "os.scandir")
DIR_FD = {"os.mkdir": 2, "os.remove": 1, "os.rmdir": 1, "os.rename": 2, "os.link": 2, "os.chmod": 2, "os.utime": 3}
"""Where an event's arguments hold the folder that its path is relative to."""
EVENTS = frozenset(DIR_FD) | {"os.truncate", "os.symlink", "shutil.rmtree", "os.listdir", "os.scandir", "fcntl.flock"}

Deed = Callable[[int, str, str], None]
"""Gets the number of the operation to come, its kind and its path."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Call a deed before each operation below `root`; those that only read count too if `reads`."""

    root: Path
    deed: Deed
    reads: bool = False

    def __call__(self) -> None:
        """Start, for the rest of this process."""
        root, count, busy = str(self.root.resolve()) + os.sep, 0, False

        def operation(kind: str, path: object, folder: object = None) -> None:
            nonlocal count, busy
            where = _absolute(path, folder)
            if busy or not where.startswith(root) or (kind in READING and not self.reads):
                return
            busy, count = True, count + 1
            try:
                self.deed(count - 1, kind, where)
            finally:
                busy = False

        def hook(event: str, given: tuple[Any, ...]) -> None:
            if event == "open":
                flags = given[2] if isinstance(given[2], int) else 0
                operation("create" if flags & CREATING else "read", given[0])
            elif event in EVENTS:
                operation(event, given[0], given[DIR_FD[event]] if event in DIR_FD else None)

        sys.addaudithook(hook)
        _watch_writes(operation)
        _watch_outsiders(operation)


def _absolute(path: object, folder: object) -> str:
    """The path that an event is about; empty if it is about none."""
    if isinstance(path, int):
        base, path = "", f"/proc/self/fd/{path}"
        path = os.readlink(path) if os.path.lexists(path) else ""
    elif isinstance(folder, int) and folder >= 0:
        base = os.readlink(f"/proc/self/fd/{folder}")
    else:
        base = os.getcwd()
    return os.path.join(base, os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) and path else ""


def _watch_writes(operation: Callable[..., None]) -> None:
    """Let each write of Python's files and each fsync be an operation; one that fails has written a half before."""
    plain_open, plain_sync = io.open, os.fsync

    class Raw(io.FileIO):
        failure: OSError | None = None

        def write(self, data: Any) -> int:
            if self.failure is not None:
                failure, self.failure = self.failure, None
                raise failure
            try:
                operation("write", self.fileno())
            except OSError as error:
                half = len(data) // 2
                if not half:
                    raise
                self.failure = error
                data = data[:half]
            return super().write(data)

    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
        newline: Any = None, closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        if not set(mode) & set("wax+") or buffering == 0:
            return plain_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding or "utf-8", errors, newline)

    def sync(descriptor: Any) -> None:
        operation("fsync", descriptor if isinstance(descriptor, int) else descriptor.fileno())
        plain_sync(descriptor)

    io.open, builtins.open, os.fsync = opened, opened, sync  # type: ignore[assignment]


def _watch_outsiders(operation: Callable[..., None]) -> None:
    """Writers in Rust and C raise no audit events, and errors of their own kinds."""
    import av
    import safetensors.torch
    from av.error import err_check
    from safetensors import SafetensorError

    serialize, av_open = safetensors.torch.serialize_file, av.open

    def serialized(tensors: Any, filename: Any, *rest: Any, **options: Any) -> None:
        try:
            operation("safetensors", filename)
        except OSError as error:
            reason = f"I/O error: {error.strerror} (os error {error.errno})"
            raise SafetensorError(f"Error while serializing: {reason}") from None
        serialize(tensors, filename, *rest, **options)

    def container(file: Any, mode: Any = None, *rest: Any, **options: Any) -> Any:
        try:
            operation("libav" if mode == "w" else "read", file)
        except OSError as error:
            err_check(-int(error.errno or errno.EIO), filename=str(file))
        return av_open(file, mode, *rest, **options)

    safetensors.torch.serialize_file, av.open = serialized, container


@dataclass(frozen=True, slots=True)
class Record:
    """Write kind and path of every operation to a file."""

    log: Path

    def __call__(self, number: int, kind: str, path: str) -> None:
        """One line."""
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{kind}\t{path}\n".encode())
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Kill:
    """Die without any clean-up."""

    at: int | str
    """A number, or a part of a path."""

    def __call__(self, number: int, kind: str, path: str) -> None:
        """At once."""
        if number == self.at or (isinstance(self.at, str) and self.at in path):
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Signals:
    """Get signals, one before each of some operations."""

    numbers: dict[int, int]

    def __call__(self, number: int, kind: str, path: str) -> None:
        """The one for this operation, if there is one."""
        if number in self.numbers:
            os.kill(os.getpid(), self.numbers[number])


@dataclass(frozen=True, slots=True)
class Fail:
    """Let one operation fail, and none after it."""

    at: int
    code: int

    def __call__(self, number: int, kind: str, path: str) -> None:
        """Raise what the system would."""
        if number == self.at:
            raise OSError(self.code, os.strerror(self.code), path)


@dataclass(frozen=True, slots=True)
class Full:
    """From one operation on no file can grow, whoever writes it: the kernel refuses."""

    at: int

    def __call__(self, number: int, kind: str, path: str) -> None:
        """Take the room away."""
        if number == self.at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@dataclass(frozen=True, slots=True)
class PowerLoss:
    """Die, and lose half of every byte that no fsync has put on the disk; names are kept as they are."""

    at: int
    root: Path
    safe: dict[int, int] = field(default_factory=dict)
    """Bytes on the disk by inode."""

    def __call__(self, number: int, kind: str, path: str) -> None:
        """Note what is safe; at the given operation lose the rest."""
        if number == 0:
            for file in filter(Path.is_file, self.root.rglob("*")):
                self._note(str(file))
        if number == self.at:
            for file in filter(Path.is_file, self.root.rglob("*")):
                found = file.stat()
                kept = min(found.st_size, self.safe.get(found.st_ino, 0))
                os.truncate(file, (found.st_size + kept) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "fsync":
            self._note(path)

    def _note(self, path: str) -> None:
        # Never closed: an inode that is open is not given to another file.
        found = os.fstat(os.open(path, os.O_RDONLY))
        self.safe[found.st_ino] = found.st_size


FORBIDDEN = {
    "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.Request", "webbrowser.open",
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.kill", "pickle.find_class",
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
    "os.utime", "shutil.rmtree",
}  # fmt: skip
TRESPASS = 97
"""The exit code of who does something forbidden."""


@dataclass(frozen=True, slots=True)
class Forbid:
    """From here on, who writes a file, reaches for the network, unpickles or starts a program ends with `TRESPASS`."""

    but: str = os.devnull
    """What may be written beside the null device: anything below this folder."""

    def __call__(self) -> None:
        """Start, for the rest of this process."""

        def hook(event: str, given: tuple[Any, ...]) -> None:
            writes = event == "open" and isinstance(given[2], int) and given[2] & CREATING
            if not writes and event not in FORBIDDEN:
                return
            folder = given[DIR_FD[event]] if event in DIR_FD else None
            path = given[1] if event == "os.link" else given[0]
            if not f"{_absolute(path, folder)}/".startswith((f"{os.devnull}/", f"{self.but}/")):
                os.write(2, f"does what it must not: {event} {given!r}\n".encode())
                os._exit(TRESPASS)

        sys.addaudithook(hook)
