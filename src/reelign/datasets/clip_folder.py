"""Captioned clips in a folder and its sub-folders, described in one of three ways.

| layout | files |
|---|---|
| same stem | `a.mp4` + `a.txt`, `day2/b.mov` + `day2/b.txt`, ... |
| table | `metadata.jsonl`, `.csv` or `.tsv`: `file_name` (or `video`, `path`, ...) and `caption`, `prompt` or `text` |
| two lists | `prompts.txt` (or `prompt`, `caption`, `captions`) + `videos.txt` (or `video`), line by line |

The `.txt` of a clip that is there is its caption, whatever its name. Clips may be symbolic links to anywhere; texts may
not lead out of the folder.
"""

import os
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch

from reelign.batches import Clips
from reelign.datasets import _files, _folder, _tables
from reelign.datasets._clips import ClipConfig, ClipSource, Entry
from reelign.datasets._draw import digest
from reelign.errors import BadData, shown
from reelign.protocols import VideoModel

CAPTION_COLUMNS = ("caption", "prompt", "text")
CLIP_COLUMNS = ("file_name", "video", "video_path", "path", "file", "file_path", "filename", "filepath")
"""The first comes before the others."""
TABLES = ("metadata.jsonl", "metadata.csv", "metadata.tsv")
CAPTION_LISTS = ("prompt.txt", "prompts.txt", "caption.txt", "captions.txt")
VIDEO_LISTS = ("video.txt", "videos.txt")

Entries = list[Entry]


class Config(ClipConfig):
    """Which folder, and what to do with clips that do not fit or cannot be read."""

    name: str = "clip_folder"
    gives: ClassVar = frozenset({"prompts", "clips"})
    path: _files.UserPath
    """The folder; `~` is the home folder."""
    caption_column: str = ""
    """Column of the table that holds the captions; empty: the one of caption, prompt and text that is there."""


class Described(NamedTuple):
    """What a folder says about its clips."""

    entries: Entries
    """Clips and captions, in the order of the table, the lists, or the names."""
    uncaptioned: list[Path]
    passed_over: dict[Path, str]
    """What is no clip to train on, and why, as `... is a caption without a clip`."""
    leftovers: int
    """Files of operating systems beside them."""


class ClipFolder(ClipSource):
    """Clips with captions. Remembers what it leaves out."""

    def __init__(self, config: Config) -> None:
        """Read all captions and look at every clip's header.

        Raises:
            BadData: the folder or its lists do not fit, or too many clips have no caption or are unreadable.
        """
        root = _files.folder(config.path)
        found = described(config, root)
        super().__init__(config, root, found.entries, found.uncaptioned)
        self._leftovers = found.leftovers
        names = {path: self._name(path) + ("/" if os.path.isdir(path) else "") for path in found.passed_over}
        self._passed_over = {names[path]: f"{names[path]} {why}" for path, why in found.passed_over.items()}

    @property
    def counts(self) -> dict[str, int]:
        """How many clips there are, how many of them are left out up to now, and how many files are nothing to read."""
        return {"clips": self._all, "left out": len(self._faulty), "passed over": len(self._passed_over)}

    @property
    def left_out(self) -> dict[str, str]:
        """Clips, other files and folders that are not read, and why, with the name in it; those of folders end in /."""
        return self._faulty | self._passed_over

    @property
    def notes(self) -> tuple[str, ...]:
        """How much is read, and what is not."""
        left_out, told = self.left_out, self._note
        folders = sum(name.endswith("/") for name in left_out)
        kinds = (_files.counted(n, what) for n, what in ((len(left_out) - folders, "file"), (folders, "folder")) if n)
        if left_out:
            told += f"; {' and '.join(kinds)} left out: {_files.several(list(left_out.values()))}"
        if self._leftovers:
            told += (
                f"; {_files.counted(self._leftovers, 'leftover')} of operating systems (such as .DS_Store) passed over"
            )
        return (f"{told}.",)

    def identity(self) -> dict[str, str | int]:
        """Counts, and a digest of names, sizes and captions."""
        names = ([self._name(path), self._size(path), caption] for caption, (path,) in self._entries)
        return {"clips": len(self._entries), "sha256": digest(names)}

    def clips(self, n: int, seed: int, model: VideoModel) -> Clips:
        """Draw number `seed` of `n` clips; consecutive numbers show every clip once an epoch. See `ClipSource.draw`."""
        (x0,), shown = self.draw(n, seed, model)
        return Clips(x0, shown, torch.ones(n, device=x0.device))


def described(config: Config, root: Path) -> Described:
    """The clips of a folder and their captions, and all else that lies there.

    Raises:
        BadData: see `ClipFolder`.
    """
    found = _folder.listing(root)
    stems = {clip.with_suffix("") for clip in found.clips}
    tables, captions, videos = (
        [root / name for name in names if (root / name).is_file() and (root / name).with_suffix("") not in stems]
        for names in (TABLES, CAPTION_LISTS, VIDEO_LISTS)
    )
    lists = captions if videos else []
    if len(tables) > 1 or len(lists) > 1 or len(videos) > 1 or (tables and videos):
        names = ", ".join(path.name for path in (*tables, *lists, *videos))
        raise BadData(
            f"{config.path} describes its clips more than once ({names}); keep one table, or one list of each."
        )
    if config.caption_column and not tables:
        raise BadData(
            f"{config.path} has no {' or '.join(TABLES)} with a column {shown(config.caption_column)}; add one, or "
            "leave dataset.caption_column empty."
        )
    if tables:
        entries, sources = _from_table(root, tables[0], config.caption_column), tables
    elif videos:
        if not captions:
            raise BadData(f"{videos[0]} has no captions beside it; add prompts.txt with one caption a line.")
        entries, sources = _from_lists(root, captions[0], videos[0]), [captions[0], videos[0]]
    else:
        return _from_stems(config, root, found)
    if not entries:
        raise BadData(f"{sources[-1]} names no clips; write one a line.")
    taken = _folder.above(path for _, (path,) in entries).union(sources)
    reason = f"is not in {sources[-1].name}, which describes the clips"
    rest = dict.fromkeys((*found.clips, *found.texts, *found.others), reason) | found.passed_over
    return Described(entries, [], {path: why for path, why in rest.items() if path not in taken}, len(found.leftovers))


def _from_table(root: Path, table: Path, column: str) -> Entries:
    _files.own(root, table)
    found: Entries = []
    for number, row in _tables.json_rows(table) if table.suffix == ".jsonl" else _tables.csv_rows(table):
        where = f"{table}, line {number}"
        first = CLIP_COLUMNS[0]
        clip = first if first in row else _tables.column(row, CLIP_COLUMNS, "clip", "", where)
        said = column or _tables.column(row, CAPTION_COLUMNS, "caption", "dataset.caption_column", where)
        path = _files.inside(root, _tables.string(row, clip, where), where)
        found.append((_tables.line(row, said, where), (path,)))
    return found


def _from_lists(root: Path, captions: Path, videos: Path) -> Entries:
    texts, names = (_files.text(_files.own(root, path)).rstrip().split("\n") for path in (captions, videos))
    if len(texts) != len(names):
        raise BadData(
            f"{captions} has {len(texts)} lines and {videos} {len(names)}; they must go together line by line."
        )
    found: Entries = []
    for number, (caption, name) in enumerate(zip(texts, names, strict=True), start=1):
        if not caption.strip() or not name.strip():
            empty = videos if caption.strip() else captions
            raise BadData(f"{empty}, line {number}: empty; write one caption and one clip on each line.")
        path = _files.inside(root, name.strip(), f"{videos}, line {number}")
        found.append((" ".join(caption.split()), (path,)))
    return found


def _from_stems(config: Config, root: Path, found: _folder.Listing) -> Described:
    if not found.clips:
        names = [path.name for path in (*found.others, *found.passed_over)]
        there = f" (but {_files.several(names)})" if names else ""
        raise BadData(
            f"{config.path} holds no clips{there}; put a.mp4 with its caption in a.txt there, or a metadata.jsonl."
        )
    beside = _folder.captions(found)
    entries: Entries = []
    for clip, note in beside.items():
        caption = " ".join(_files.text(_files.own(root, note)).split())
        if not caption:
            raise BadData(f"{note} is empty; write the caption of {clip.name} there.")
        entries.append((caption, (clip,)))
    uncaptioned = [clip for clip in found.clips if clip not in beside]
    if uncaptioned and (below := [path for path in found.others if path.name in TABLES]):
        raise BadData(f"{below[0]} describes the clips of its own folder; set dataset.path to that folder.")
    used = set(beside.values())
    captioned = {_folder.compared(note.with_suffix("")) for note in found.texts}
    unread = [path for path in found.others if _folder.compared(path.with_suffix("")) in captioned]
    passed_over = dict.fromkeys(unread, "is of a kind that is not read")
    passed_over |= {note: "is a caption without a clip" for note in found.texts if note not in used}
    passed_over |= {path: "is neither clip nor caption" for path in found.others if path not in passed_over}
    return Described(entries, uncaptioned, passed_over | found.passed_over, len(found.leftovers))


def build(config: Config) -> ClipFolder:
    """Open a folder of captioned clips."""
    return ClipFolder(config)
