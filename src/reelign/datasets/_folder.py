"""What lies in a folder of clips and below it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from reelign import video
from reelign.errors import BadData

CAPTION = ".txt"


@dataclass(frozen=True, slots=True)
class Listing:
    """Files by what they are for, each in the order of their names."""

    clips: list[Path] = field(default_factory=list)
    texts: list[Path] = field(default_factory=list)
    """Those that may be captions, by their suffix."""
    others: list[Path] = field(default_factory=list)


def listing(root: Path) -> Listing:
    """All files of a folder and its sub-folders, but for hidden ones.

    Sub-folders may be symbolic links; none is gone through twice.

    Raises:
        BadData: a sub-folder cannot be read.
    """
    found, seen = Listing(), {os.path.realpath(root)}
    files: list[Path] = []
    for place, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        inner, folders[:] = sorted(name for name in folders if name[0] != "."), []
        for name in inner:
            real = os.path.realpath(os.path.join(place, name))
            if real not in seen:
                seen.add(real)
                folders.append(name)
        files += [Path(place, name) for name in names if name[0] != "."]
    for path in sorted(files):
        suffix = path.suffix.lower()
        kind = found.clips if suffix in video.SUFFIXES else found.texts if suffix == CAPTION else found.others
        kind.append(path)
    return found


def _refuse(error: OSError) -> None:
    raise BadData(f"{error.filename} cannot be read ({error.strerror}); check its permissions.") from error


def captions(found: Listing) -> dict[Path, Path]:
    """The text beside each clip that has one: `a.txt` or `a.mp4.txt` for `a.mp4`.

    Raises:
        BadData: a clip has both.
    """
    texts = {path.with_suffix(""): path for path in found.texts}
    beside: dict[Path, Path] = {}
    for clip in found.clips:
        there = [texts[name] for name in (clip.with_suffix(""), clip) if name in texts]
        if len(there) > 1:
            raise BadData(f"{clip} has two captions, {there[0].name} and {there[1].name}; remove one of them.")
        if there:
            beside[clip] = there[0]
    return beside
