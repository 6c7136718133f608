"""Captioned clips in a folder, laid out in one of three ways.

| layout | files |
|---|---|
| same stem | `a.mp4` + `a.txt`, ... |
| table | `metadata.jsonl` or `metadata.csv` with `file_name` and one of `caption`, `prompt`, `text` |
| two lists | `prompts.txt` (or `prompt`, `caption`, `captions`) + `videos.txt` (or `video`), line by line |
"""

from pathlib import Path

import torch
from pydantic import Field

from reelign.batches import Clips, Pairs, Prompts
from reelign.datasets import _files
from reelign.datasets._clips import ClipFiles, Fit, batch
from reelign.datasets._draw import order
from reelign.datasets.prompt_file import drawn
from reelign.errors import BadConfig, BadData
from reelign.parts import PartConfig
from reelign.protocols import VideoModel

CAPTION_COLUMNS = ("caption", "prompt", "text")
CAPTION_LISTS = ("prompt.txt", "prompts.txt", "caption.txt", "captions.txt")
VIDEO_LISTS = ("video.txt", "videos.txt")

Entries = list[tuple[Path, str]]


class Config(PartConfig):
    """Which folder, and what to do with clips that do not fit or cannot be read."""

    name: str = "clip_folder"
    path: Path
    """The folder."""
    caption_column: str = ""
    """Column of the table that holds the captions; empty: the one of caption, prompt and text that is there."""
    fit: Fit = "exact"
    """exact: refuse clips of other frames, size or frame rate than the model's. resize: crop around the centre, resize
    bilinearly, and take frames from the beginning at the model's frame rate."""
    quarantine: float = Field(default=0.0, ge=0, le=1)
    """Share of the clips that may be unreadable; they are left out and reported. More of them is an error."""
    seed: int = 0
    """Of the shuffles."""


class ClipFolder:
    """Clips with captions. Keeps the latents of the last model in main memory and remembers unreadable clips."""

    gives = frozenset({"prompts", "clips"})

    def __init__(self, config: Config) -> None:
        """Read all captions and look at every clip's header.

        Raises:
            BadData: the folder or its lists do not fit, captions are missing, or too many clips are unreadable.
        """
        self._config = config
        self._entries = entries(config)
        self._files = ClipFiles((path for path, _ in self._entries), config.path, config.fit, config.quarantine)

    @property
    def counts(self) -> dict[str, int]:
        """How many clips there are, and how many of them were found unreadable up to now."""
        return {"clips": len(self._entries), "unreadable": len(self._files.unreadable)}

    @property
    def unreadable(self) -> dict[Path, str]:
        """Clips left out up to now, and why."""
        return dict(self._files.unreadable)

    def prompts(self, n: int, group: int, seed: int) -> Prompts:
        """Draw number `seed` of `n` captions."""
        return drawn(self.all_prompts(), n, group, seed, self._config.seed, str(self._config.path))

    def all_prompts(self) -> Prompts:
        """Every caption, in the folder's order."""
        return Prompts(tuple(caption for _, caption in self._entries), tuple(range(len(self._entries))))

    def clips(self, n: int, seed: int, model: VideoModel) -> Clips:
        """Draw number `seed` of `n` clips; consecutive numbers show every clip once an epoch.

        An unreadable clip gives its place to the next one in the shuffle. Only if `n` exceeds the readable clips does a
        clip come twice.

        Raises:
            BadData: clips do not fit the model, or too many are unreadable.
        """
        self._files.fit(model.geometry)
        latents, texts = [], []
        for index in order(len(self._entries), n, seed, self._config.seed):
            path, caption = self._entries[index]
            latent = self._files.latent(path, model)
            if latent is not None:
                latents.append(latent)
                texts.append(caption)
            if len(latents) == n:
                break
        taken = [k % len(latents) for k in range(n)]
        x0 = batch([latents[k] for k in taken], model)
        return Clips(x0, tuple(texts[k] for k in taken), torch.ones(n, device=x0.device))

    def pairs(self, n: int, seed: int, model: VideoModel) -> Pairs:
        """Refuse.

        Raises:
            BadConfig: always.
        """
        raise BadConfig("clip_folder gives clips and prompts only; for pairs use the dataset pair_list.")


def entries(config: Config) -> Entries:
    """The clips of a folder and their captions, in the order of the table, the lists, or the names.

    Raises:
        BadData: see `ClipFolder`.
    """
    root = _files.folder(config.path)
    tables = [root / name for name in ("metadata.jsonl", "metadata.csv") if (root / name).is_file()]
    captions = [root / name for name in CAPTION_LISTS if (root / name).is_file()]
    videos = [root / name for name in VIDEO_LISTS if (root / name).is_file()]
    lists = captions if videos else []
    if len(tables) > 1 or len(lists) > 1 or len(videos) > 1 or (tables and videos):
        found = ", ".join(path.name for path in (*tables, *lists, *videos))
        raise BadData(
            f"{config.path} describes its clips more than once ({found}); keep one table, or one list of each."
        )
    if config.caption_column and not tables:
        raise BadData(
            f"{config.path} has no metadata.jsonl or metadata.csv with a column {config.caption_column!r}; add one, "
            "or leave dataset.caption_column empty."
        )
    if tables:
        found = _from_table(root, tables[0], config.caption_column)
    elif videos:
        if not captions:
            raise BadData(f"{videos[0]} has no captions beside it; add prompts.txt with one caption a line.")
        found = _from_lists(root, captions[0], videos[0])
    else:
        found = _from_stems(root)
    if not found:
        raise BadData(f"{config.path} holds no clips; put a.mp4 with its caption in a.txt there, or a metadata.jsonl.")
    return found


def _from_table(root: Path, table: Path, column: str) -> Entries:
    rows = _files.json_rows(table) if table.suffix == ".jsonl" else _files.csv_rows(table)
    found: Entries = []
    for number, row in rows:
        where = f"{table}, line {number}"
        name = _files.string(row, "file_name", where)
        caption = _files.string(row, column or _caption_column(row, where), where)
        found.append((_files.inside(root, name, where), caption))
    return found


def _caption_column(row: dict[str, object], where: str) -> str:
    there = [name for name in CAPTION_COLUMNS if name in row]
    if len(there) == 1:
        return there[0]
    problem = f"captions in both {' and '.join(there)}" if there else f"no caption among {', '.join(map(repr, row))}"
    raise BadData(
        f"{where}: {problem}; one column of {', '.join(CAPTION_COLUMNS)} is read: rename one, or set "
        "dataset.caption_column."
    )


def _from_lists(root: Path, captions: Path, videos: Path) -> Entries:
    texts, names = (_files.text(path).rstrip().split("\n") for path in (captions, videos))
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
        found.append((path, " ".join(caption.split())))
    return found


def _from_stems(root: Path) -> Entries:
    clips = sorted(path for path in root.iterdir() if path.suffix.lower() == ".mp4" and not path.name.startswith("."))
    if missing := [path.name for path in clips if not path.with_suffix(".txt").is_file()]:
        raise BadData(
            f"{len(missing)} of {len(clips)} clips of {root} have no caption: {_files.first_three(missing)}; write "
            "each one's caption to a .txt file of the same name."
        )
    found: Entries = []
    for path in clips:
        note = path.with_suffix(".txt")
        for file in (path, note):
            _files.inside(root, file.name, str(root))
        caption = " ".join(_files.text(note).split())
        if not caption:
            raise BadData(f"{note} is empty; write the caption of {path.name} there.")
        found.append((path, caption))
    return found


def build(config: Config) -> ClipFolder:
    """Open a folder of captioned clips."""
    return ClipFolder(config)
