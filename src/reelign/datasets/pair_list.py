"""Preference pairs from a list beside its clips, in one of two forms.

`.jsonl`: `{"prompt": ..., "chosen": "a.mp4", "rejected": "b.mp4"}`; with `"label": "tie"` neither is better.
`.csv`, as VideoAlign's: `path_A, path_B, prompt` and columns of judgements (`Overall`, `VQ`, `MQ`, `TA`), each of them
A, B or same. Cells may be set apart by commas, semicolons or tabs.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from reelign.batches import Pairs, Prompts, requests
from reelign.datasets import _files, _tables
from reelign.datasets._clips import ClipConfig, ClipSource
from reelign.datasets._draw import digest
from reelign.errors import BadData, cut, shown
from reelign.protocols import VideoModel

KEYS = ("prompt", "chosen", "rejected", "label")
JUDGEMENTS = ("A", "B", "same")


class Config(ClipConfig):
    """Which list, and what to do with clips that do not fit or cannot be read."""

    name: str = "pair_list"
    gives: ClassVar = frozenset({"prompts", "pairs"})
    path: _files.UserPath
    """A .jsonl or .csv file; its clips stand in its folder or below. `~` is the home folder."""
    judgement: str = "Overall"
    """Column of a .csv file that says which clip is better."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One judged pair of clips; of a tie, neither is the better one."""

    prompt: str
    chosen: Path
    rejected: Path
    tie: bool


class PairList(ClipSource):
    """Judged pairs. Remembers unreadable clips."""

    def __init__(self, config: Config) -> None:
        """Read the list and look at every clip's header.

        Raises:
            BadData: the list or a line of it does not fit, a path leaves the folder, nothing but ties, or too many
                clips are unreadable.
        """
        self._judged = judged(config)
        pairs = [(pair.prompt, (pair.chosen, pair.rejected)) for pair in self._judged if not pair.tie]
        if not pairs:
            raise BadData(
                f"{config.path} holds no pair to learn from ({len(self._judged)} ties); add pairs with a better clip."
            )
        super().__init__(config, config.path.parent.resolve(), pairs)

    @property
    def counts(self) -> dict[str, int]:
        """How many pairs and ties there are, and how many clips are left out up to now."""
        pairs = len(self._entries)
        return {"pairs": pairs, "ties": len(self._judged) - pairs, "left out": len(self.left_out)}

    @property
    def notes(self) -> tuple[str, ...]:
        """How much is read, and what is not."""
        ties, left_out = self.counts["ties"], list(self.left_out.values())
        note = f"{self._note} for {_files.counted(len(self._entries), 'pair')}"
        if ties:
            note += f"; {_files.counted(ties, 'tie')} not trained on"
        if left_out:
            note += f"; {_files.counted(len(left_out), 'clip')} left out with their pairs: {_files.several(left_out)}"
        return (f"{note}.",)

    def identity(self) -> dict[str, str | int]:
        """Counts, and a digest of prompts, ties, and clips by name and size."""
        return {"pairs": len(self._entries), "sha256": digest(self._row(pair) for pair in self._judged)}

    def _row(self, pair: Pair) -> list[object]:
        sides = [(self._name(path), self._size(path)) for path in (pair.chosen, pair.rejected)]
        return [pair.prompt, pair.tie, *sides]

    def all_prompts(self) -> Prompts:
        """The different prompts, ties included, in the order in which they come up."""
        return Prompts(requests(dict.fromkeys(pair.prompt for pair in self._judged)))

    def pairs(self, n: int, seed: int, model: VideoModel) -> Pairs:
        """Draw number `seed` of `n` pairs; consecutive numbers show every pair once an epoch. See `ClipSource.draw`."""
        (chosen, rejected), shown = self.draw(n, seed, model)
        return Pairs(chosen, rejected, shown)


def judged(config: Config) -> list[Pair]:
    """All pairs of a list, ties included, in file order.

    Raises:
        BadData: see `PairList`.
    """
    path = config.path
    root = path.parent.resolve()
    if path.suffix.lower() == ".jsonl":
        pairs = [_from_json(root, row, f"{path}, line {number}") for number, row in _tables.json_rows(path)]
    elif path.suffix.lower() == ".csv":
        rows = _tables.csv_rows(path)
        pairs = [_from_csv(root, row, f"{path}, line {number}", config.judgement) for number, row in rows]
    else:
        raise BadData(
            f"{cut(str(path), 200)} is neither .jsonl nor .csv; give one pair a line as "
            "{prompt, chosen, rejected} (.jsonl)."
        )
    if not pairs:
        raise BadData(f"{path} holds no pairs; write one a line.")
    return pairs


def _pair(root: Path, prompt: str, chosen: str, rejected: str, tie: bool, where: str) -> Pair:
    first, second = _files.inside(root, chosen, where), _files.inside(root, rejected, where)
    if os.path.realpath(first) == os.path.realpath(second):
        raise BadData(f"{where}: both clips are {shown(chosen)}; a pair needs two different clips.")
    return Pair(prompt, first, second, tie)


def _from_json(root: Path, row: dict[str, object], where: str) -> Pair:
    prompt = _tables.line(row, "prompt", where)
    chosen, rejected = (_tables.string(row, key, where) for key in ("chosen", "rejected"))
    _tables.only(row, KEYS, where)
    label = row.get("label")
    if label not in (None, "tie"):
        raise BadData(
            f"{where}: 'label' is {shown(label)}; the only label is 'tie': write it for pairs without a better clip."
        )
    return _pair(root, prompt, chosen, rejected, label == "tie", where)


def _from_csv(root: Path, row: dict[str, object], where: str, column: str) -> Pair:
    prompt = _tables.line(row, "prompt", where)
    first, second = (_tables.string(row, key, where) for key in ("path_A", "path_B"))
    if column not in row:
        judging = [name for name, value in row.items() if value in JUDGEMENTS]
        raise BadData(
            f"{where}: no column {shown(column)}; columns with judgements are {', '.join(judging) or 'not there'}: set "
            "dataset.judgement to one of them."
        )
    judgement = row[column]
    if judgement not in JUDGEMENTS:
        raise BadData(f"{where}: {column} is {shown(judgement)}; allowed are {', '.join(JUDGEMENTS)}.")
    chosen, rejected = (second, first) if judgement == "B" else (first, second)
    return _pair(root, prompt, chosen, rejected, judgement == "same", where)


def build(config: Config) -> PairList:
    """Open a list of judged pairs."""
    return PairList(config)
