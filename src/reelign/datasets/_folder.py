"""What lies in a folder of clips and below it."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from reelign import video
from reelign.errors import BadData
from reelign.names import composed

CAPTION = ".txt"
LEFTOVERS = re.compile(r"\._.*|\.ds_store|thumbs\.db|desktop\.ini", re.IGNORECASE)
"""Files that macOS and Windows leave beside those of a person, who never sees them there."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Files by what they are for, each in the order of their names."""

    clips: list[Path] = field(default_factory=list)
    texts: list[Path] = field(default_factory=list)
    """Those that may be captions, by their suffix."""
    others: list[Path] = field(default_factory=list)
    passed_over: dict[Path, str] = field(default_factory=dict)
    """Files and folders that are not looked at, and why, as `... is a hidden folder`."""
    leftovers: list[Path] = field(default_factory=list)
    """Of operating systems: too many and too small to be named."""


def listing(root: Path) -> Listing:
    """All that lies in a folder and its sub-folders; hidden ones are not entered.

    Sub-folders may be symbolic links; none is gone through twice.

    Raises:
        BadData: a sub-folder cannot be read.
    """
    found, seen = Listing(), {os.path.realpath(root)}
    files: list[Path] = []
    called_clips: list[Path] = []
    for place, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        inner, folders[:] = [Path(place, name) for name in sorted(folders)], []
        for path in inner:
            real = os.path.realpath(path)
            if path.name[0] == ".":
                found.passed_over[path] = "is a hidden folder"
            elif real not in seen:
                seen.add(real)
                folders.append(path.name)
                called_clips += [path] if path.suffix.lower() in video.SUFFIXES else []
        files += [Path(place, name) for name in names]
    for path in sorted(files):
        suffix = path.suffix.lower()
        if LEFTOVERS.fullmatch(path.name):
            found.leftovers.append(path)
        elif path.name[0] == ".":
            found.passed_over[path] = "is a hidden file"
        else:
            kind = found.clips if suffix in video.SUFFIXES else found.texts if suffix == CAPTION else found.others
            kind.append(path)
    held = above(found.clips)
    found.passed_over.update({path: "is a folder without a clip in it" for path in called_clips if path not in held})
    return found


def _refuse(error: OSError) -> None:
    raise BadData(f"{error.filename} cannot be read ({error.strerror}); check its permissions.") from error


def above(paths: Iterable[Path]) -> set[Path]:
    """The paths themselves, and all folders that they lie in."""
    found: set[Path] = set()
    for path in paths:
        while path not in found:
            found.add(path)
            path = path.parent
    return found


def compared(path: Path) -> str:
    """What a path is compared by, whatever Unicode form its letters have."""
    return composed(str(path))


def captions(found: Listing) -> dict[Path, Path]:
    """The text beside each clip that has one: `a.txt` or `a.mp4.txt` for `a.mp4`.

    Raises:
        BadData: a clip has both, or two files have one name but for its Unicode form.
    """
    _refuse_twins(found.clips)
    _refuse_twins(found.texts)
    texts: dict[str, list[Path]] = {}
    for path in found.texts:
        texts.setdefault(compared(path.with_suffix("")), []).append(path)
    beside: dict[Path, Path] = {}
    for clip in found.clips:
        there = [text for stem in (clip.with_suffix(""), clip) for text in texts.get(compared(stem), ())]
        if len(there) > 1:
            raise BadData(f"{clip} has two captions, {there[0].name} and {there[1].name}; remove one of them.")
        if there:
            beside[clip] = there[0]
    return beside


def _refuse_twins(paths: Iterable[Path]) -> None:
    known: dict[str, Path] = {}
    for path in paths:
        twin = known.setdefault(compared(path), path)
        if twin != path:
            one, other = next(pair for pair in zip(twin.parts, path.parts, strict=True) if pair[0] != pair[1])
            raise BadData(
                f"{path} is there twice, by the names {one!a} and {other!a}, which differ in their Unicode "
                "form only; remove or rename one of them."
            )
