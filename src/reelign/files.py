"""Files that are whole or absent: a temporary name, fsync, rename."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from reelign.errors import CannotWrite

_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<kind>tmp|old)-[0-9a-f]{8}")
"""What a killed process leaves: a half-written file or folder (tmp), or one that was about to be replaced (old)."""
_NO_ROOM = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there")
_NOT_ALLOWED = dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable")
_GONE = dict.fromkeys((errno.ENOENT, errno.ESTALE), "its folder is gone: put it back")
_ODD = dict.fromkeys(
    (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENXIO), "move away what stands there"
)
_REMEDIES = {**_NO_ROOM, **_NOT_ALLOWED, **_GONE, **_ODD, errno.ENAMETOOLONG: "give a shorter name"}
_NO_SUCH_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF})


@contextmanager
def replacing(path: Path, lasting: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place once the block ends well: readers see the old or the new.

    Whatever happens, no temporary file stays behind, and what stood at `path` is whole. Makes the folder. What is not
    `lasting` is not waited for, and may be gone or half there after a power cut.

    Raises:
        CannotWrite: the disk is full, or the place cannot be written.
    """
    with _temporary(path) as temporary, writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if lasting:
            sync(temporary)
        temporary.replace(path)
        if lasting:
            sync(path.parent)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """The same for a folder, which the block makes and fills.

    What stood at `path` steps aside for the rename and goes after it; if a kill falls between, `sweep` brings it back.
    """
    temporary, aside = _beside(path, "tmp"), _beside(path, "old")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            for folder, _, names in os.walk(temporary):
                for name in names:
                    sync(Path(folder, name))
                sync(Path(folder))
            if os.path.lexists(path):
                path.rename(aside)
            temporary.rename(path)
            sync(path.parent)
    finally:
        with suppress(OSError):
            if os.path.lexists(aside) and not os.path.lexists(path):
                aside.rename(path)
            for left in (temporary, aside):
                remove(left)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the system, met while writing `path`, into one sentence.

    Raises:
        CannotWrite: it says why, and what helps.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        # The writer of safetensors gives the system's error as text.
        told = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
        number = int(told[1]) if told else getattr(error, "errno", None)
        if number is None and not isinstance(error, OSError):
            raise
        reason = os.strerror(number) if number else str(error)
        raise CannotWrite(path, reason, _REMEDIES.get(number or 0, "look at that disk")) from error


@contextmanager
def usual_mode(path: Path) -> Iterator[None]:
    """Give the file that the block writes the mode of any new file; safetensors makes them for their owner alone."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    yield
    path.chmod(mode)


def write_text(path: Path, text: str) -> None:
    r"""Replace a file as a whole with UTF-8 text.

    Half surrogates, which have no UTF-8, are written as escapes (`\ud83d`): those are what JSON reads them from.

    Raises:
        CannotWrite: the disk is full, or the place cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def refresh(path: Path, text: str) -> None:
    """Replace a small file that is written often: readers see the old or the new, but nothing waits for the disk.

    Raises:
        OSError: it cannot be written; its folder is not made.
    """
    with _temporary(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        temporary.replace(path)


def append(path: Path, data: bytes) -> None:
    """Add bytes to the end of a regular file, which is made if it is not there.

    Raises:
        OSError: the disk is full, the place cannot be written, or something else than a file stands there.
    """
    # Neither through a link to elsewhere, nor waiting for the reader of a pipe.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems have nothing to sync for a folder, and say so.
        if error.errno not in _NO_SUCH_SYNC or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all in it, read-only or not; what a link leads to stays.

    Raises:
        OSError: the system does not let it go.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path.chmod(path.stat().st_mode | 0o700)
    for folder, inner, _ in os.walk(path):
        for each in (Path(folder, name) for name in inner):
            if not each.is_symlink():
                each.chmod(each.stat().st_mode | 0o700)
    shutil.rmtree(path)


def discard(path: Path) -> None:
    """Remove a folder so that a kill halfway leaves nothing under its name; `sweep` takes the rest.

    Raises:
        OSError: the system does not let it go; under its name it is gone or whole.
    """
    leaving = _beside(path, "tmp")
    path.rename(leaving)
    remove(leaving)


def aside(path: Path) -> Path:
    """Move what stands at `path`, whatever it is, to the first free name beside it: `name.aside-1.json`."""
    free = (path.with_name(f"{path.stem}.aside-{n}{path.suffix}") for n in range(1, 1 << 20))
    target = next(each for each in free if not os.path.lexists(each))
    with writing(target):
        path.rename(target)
    return target


def digest(path: Path) -> str:
    """The sha256 of a file.

    Raises:
        OSError: it cannot be read, or is no regular file; a pipe would be waited for.
    """
    if not path.is_file():
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(content: Mapping[str, Any]) -> str:
    """The sha256 of what a mapping says as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Whether what a mapping says as its "seal" is the seal of all else in it."""
    return content.get("seal") == seal({key: value for key, value in content.items() if key != "seal"})


def is_left(name: str) -> bool:
    """Whether something is called as what a killed process leaves."""
    return _LEFT.fullmatch(name) is not None


def sweep(folders: Iterable[Path]) -> None:
    """Put right what a killed process left in folders in which nobody else is writing; folders in them are not entered.

    Only names that this module makes are touched: the half-written goes, and what stepped aside for a new version that
    never came takes its place again.
    """
    for folder in folders:
        for left in list(folder.iterdir()) if folder.is_dir() else ():
            found = _LEFT.fullmatch(left.name)
            if found is None:
                continue
            if found["kind"] == "old" and not os.path.lexists(folder / found["name"]):
                with writing(folder / found["name"]):
                    left.rename(folder / found["name"])
            else:
                with suppress(OSError):
                    remove(left)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside `path`, of which nothing stays."""
    temporary = _beside(path, "tmp")
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}-{uuid.uuid4().hex[:8]}")
