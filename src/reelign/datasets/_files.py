"""Users' files: texts that are texts, names that stay in their folder, and sentences that name a few of many."""

import os
import re
import stat
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from reelign.errors import BadData, cut, reason, shown
from reelign.names import composed

UserPath = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]
"""A path in a recipe; `~` is the home folder."""

NAMED = 3
"""Files that a sentence names; more than these are written to a file."""


def text(path: Path) -> str:
    """The whole file as UTF-8, with or without a byte-order mark, its lines ended by a line feed.

    Raises:
        BadData: missing, no file, unreadable, not UTF-8, or with a NUL in it.
    """
    name = cut(str(path), 200)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
            raise BadData(f"{name} is not a file; give a text file.")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BadData(f"there is no file at {name}; check the path.") from error
    except (OSError, ValueError) as error:
        raise BadData(f"{name} cannot be read ({reason(error)}); give a text file.") from error
    try:
        content = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadData(f"{name}, line {line}: not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    if "\0" in content:
        line = content.count("\n", 0, content.index("\0")) + 1
        raise BadData(f"{name}, line {line}: a NUL character, which no text has; save it as text again.")
    return content


def folder(path: Path) -> Path:
    """The folder itself, symbolic links resolved.

    Raises:
        BadData: missing, or no folder.
    """
    name = cut(str(path), 200)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise BadData(f"there is no folder at {name}; check the path.") from error
    except (OSError, ValueError) as error:
        raise BadData(f"{name} cannot be read ({reason(error)}); check the path.") from error
    if not stat.S_ISDIR(mode):
        raise BadData(f"{name} is not a folder; give the folder that holds the clips.")
    return path.resolve()


def inside(root: Path, name: str, where: str) -> Path:
    """The file `name` of a folder, which the name must not leave.

    Where no file is called so, one is taken whose name has the same letters in another Unicode form: macOS writes names
    of files in one, and tables in the other.

    A table may come from a stranger. A symbolic link in the folder may lead out of it: links are the user's own doing,
    as in the hub's cache, and what they lead to is only ever read as a video.

    Args:
        root: the folder, resolved.
        name: path as the user wrote it, with forward slashes: relative to the folder, or absolute and below it.
        where: file and line, for the sentence.

    Raises:
        BadData: the path leaves the folder, is not written as here, or may be one of two files.
    """
    if "\\" in name:
        raise BadData(f"{where}: {shown(name)} has backslashes; write forward slashes.")
    path = Path(name)
    outside = ".." in path.parts or path.parts[:1] == ("~",) or re.match("[A-Za-z]:/", name)
    if path.is_absolute() and not outside:
        path = Path(os.path.realpath(path.parent)) / path.name
        outside = not path.is_relative_to(root)
    if outside:
        raise BadData(f"{where}: {shown(name)} leaves the folder {root}; use a path inside it, relative to it.")
    return _spelled(root, root / path, where)


def _spelled(root: Path, path: Path, where: str) -> Path:
    """The path in the Unicode form that its folders have it in, if they do."""
    if os.path.lexists(path):
        return path
    found = root
    for part in path.relative_to(root).parts:
        there = [part] if part.isascii() or os.path.lexists(found / part) else _alike(found).get(composed(part), [part])
        if len(there) > 1:
            raise BadData(
                f"{where}: {shown(part)} may be {there[0]!a} or {there[1]!a}, which differ in their Unicode "
                "form only; remove or rename one of them."
            )
        found /= there[0]
    return found


@lru_cache(64)
def _names(folder: Path, changed: int) -> dict[str, list[str]]:
    """Names in a folder by what they are compared by."""
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        found.setdefault(composed(name), []).append(name)
    return found


def _alike(folder: Path) -> dict[str, list[str]]:
    """The same, of a folder as it is now."""
    try:
        return _names(folder, folder.stat().st_mtime_ns)
    except (OSError, ValueError):
        return {}  # what is missing or closed is told when the clip is opened


def own(root: Path, path: Path) -> Path:
    """A text file of a folder, which unlike a clip must lie in it: what it says ends up in reports and weights.

    A data set from a stranger may hold a link to a secret. The hub's cache, whose files are links to its blobs, is
    read.

    Raises:
        BadData: a symbolic link out of the folder.
    """
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        blobs = [above.parent.parent / "blobs" for above in (root, *root.parents) if above.parent.name == "snapshots"]
        if not any(target.is_relative_to(place) for place in (root, *blobs)):
            raise BadData(
                f"{path} is a symbolic link to {target}, and texts are read from the data set's own folder only; "
                "copy the file there."
            )
    return path


def counted(count: int, what: str) -> str:
    """A count and its noun.

    Example:
        >>> counted(1, "clip"), counted(2, "clip")
        ('1 clip', '2 clips')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def several(lines: Sequence[str]) -> str:
    """Up to three of the lines in a sentence; where there are more, how many, and the file that has them all."""
    if len(lines) <= NAMED:
        return "; ".join(lines)
    place = _written(tuple(lines))
    return f"{'; '.join(lines[:NAMED])} and {len(lines) - NAMED} more" + (f", all of them in {place}" if place else "")


@lru_cache(64)
def _written(lines: tuple[str, ...]) -> str:
    """A new file in the folder for temporary files; empty if it cannot be written."""
    try:
        number, name = tempfile.mkstemp(prefix="reelign-", suffix=".txt")
        with open(number, "w", encoding="utf-8", errors="replace") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError:
        return ""
    return name
