"""Preference pairs from a list beside its clips, in one of two forms.

`.jsonl`: `{"prompt": ..., "chosen": "a.mp4", "rejected": "b.mp4"}`; with `"label": "tie"` neither is better.
`.csv`, as VideoAlign's: `path_A, path_B, prompt` and columns of judgements (`Overall`, `VQ`, `MQ`, `TA`), each of them
A, B or same.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from reelign.batches import Clips, Pairs, Prompts
from reelign.datasets import _files
from reelign.datasets._clips import ClipFiles, Fit, batch
from reelign.datasets._draw import order
from reelign.datasets.prompt_file import drawn
from reelign.errors import BadConfig, BadData
from reelign.parts import PartConfig
from reelign.protocols import VideoModel

log = logging.getLogger(__name__)

KEYS = ("prompt", "chosen", "rejected", "label")
JUDGEMENTS = ("A", "B", "same")


class Config(PartConfig):
    """Which list, and what to do with clips that do not fit or cannot be read."""

    name: str = "pair_list"
    path: Path
    """A .jsonl or .csv file; its clips stand in its folder or below."""
    judgement: str = "Overall"
    """Column of a .csv file that says which clip is better."""
    fit: Fit = "exact"
    """exact: refuse clips of other frames, size or frame rate than the model's. resize: crop around the centre, resize
    bilinearly, and take frames from the beginning at the model's frame rate."""
    quarantine: float = Field(default=0.0, ge=0, le=1)
    """Share of the clips that may be unreadable; their pairs are left out and reported. More of them is an error."""
    seed: int = 0
    """Of the shuffles."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One judged pair of clips; of a tie, neither is the better one."""

    prompt: str
    chosen: Path
    rejected: Path
    tie: bool


class PairList:
    """Judged pairs. Keeps the latents of the last model in main memory and remembers unreadable clips."""

    gives = frozenset({"prompts", "pairs"})

    def __init__(self, config: Config) -> None:
        """Read the list and look at every clip's header.

        Raises:
            BadData: the list or a line of it does not fit, a path leaves the folder, nothing but ties, or too many
                clips are unreadable.
        """
        self._config = config
        self._judged = judged(config)
        self._pairs = [pair for pair in self._judged if not pair.tie]
        if not self._pairs:
            raise BadData(
                f"{config.path} holds no pair to learn from ({len(self._judged)} ties); add pairs with a better clip."
            )
        if ties := len(self._judged) - len(self._pairs):
            log.info("%d of the %d pairs of %s are ties and are not trained on", ties, len(self._judged), config.path)
        paths = (path for pair in self._pairs for path in (pair.chosen, pair.rejected))
        self._files = ClipFiles(paths, config.path, config.fit, config.quarantine)

    @property
    def counts(self) -> dict[str, int]:
        """How many pairs and ties there are, and how many clips were found unreadable up to now."""
        ties = len(self._judged) - len(self._pairs)
        return {"pairs": len(self._pairs), "ties": ties, "unreadable": len(self._files.unreadable)}

    def prompts(self, n: int, group: int, seed: int) -> Prompts:
        """Draw number `seed` of `n` of the different prompts."""
        return drawn(self.all_prompts(), n, group, seed, self._config.seed, str(self._config.path))

    def all_prompts(self) -> Prompts:
        """The different prompts, ties included, in the order in which they come up."""
        texts = tuple(dict.fromkeys(pair.prompt for pair in self._judged))
        return Prompts(texts, tuple(range(len(texts))))

    def clips(self, n: int, seed: int, model: VideoModel) -> Clips:
        """Refuse.

        Raises:
            BadConfig: always.
        """
        raise BadConfig("pair_list gives pairs and prompts only; for clips use the dataset clip_folder or playground.")

    def pairs(self, n: int, seed: int, model: VideoModel) -> Pairs:
        """Draw number `seed` of `n` pairs; consecutive numbers show every pair once an epoch.

        A pair with an unreadable clip gives its place to the next one in the shuffle. Only if `n` exceeds the readable
        pairs does a pair come twice.

        Raises:
            BadData: clips do not fit the model, or too many are unreadable.
        """
        self._files.fit(model.geometry)
        found, texts = [], []
        for index in order(len(self._pairs), n, seed, self._config.seed):
            pair = self._pairs[index]
            chosen, rejected = self._files.latent(pair.chosen, model), self._files.latent(pair.rejected, model)
            if chosen is not None and rejected is not None:
                found.append((chosen, rejected))
                texts.append(pair.prompt)
            if len(found) == n:
                break
        if not found:
            raise BadData(f"each pair of {self._config.path} has an unreadable clip; mend the clips.")
        taken = [k % len(found) for k in range(n)]
        return Pairs(
            chosen=batch([found[k][0] for k in taken], model),
            rejected=batch([found[k][1] for k in taken], model),
            texts=tuple(texts[k] for k in taken),
        )


def judged(config: Config) -> list[Pair]:
    """All pairs of a list, ties included, in file order.

    Raises:
        BadData: see `PairList`.
    """
    path = config.path
    root = path.parent.resolve()
    if path.suffix.lower() == ".jsonl":
        pairs = [_from_json(root, row, f"{path}, line {number}") for number, row in _files.json_rows(path)]
    elif path.suffix.lower() == ".csv":
        rows = _files.csv_rows(path)
        pairs = [_from_csv(root, row, f"{path}, line {number}", config.judgement) for number, row in rows]
    else:
        raise BadData(
            f"{path} is neither .jsonl nor .csv; give one pair a line as {{prompt, chosen, rejected}} (.jsonl)."
        )
    if not pairs:
        raise BadData(f"{path} holds no pairs; write one a line.")
    return pairs


def _pair(root: Path, prompt: str, chosen: str, rejected: str, tie: bool, where: str) -> Pair:
    first, second = _files.inside(root, chosen, where), _files.inside(root, rejected, where)
    if first.resolve() == second.resolve():
        raise BadData(f"{where}: both clips are {chosen!r}; a pair needs two different clips.")
    return Pair(prompt, first, second, tie)


def _from_json(root: Path, row: dict[str, object], where: str) -> Pair:
    prompt, chosen, rejected = (_files.string(row, key, where) for key in ("prompt", "chosen", "rejected"))
    _files.only(row, KEYS, where)
    label = row.get("label")
    if label not in (None, "tie"):
        raise BadData(
            f"{where}: 'label' is {label!r}; the only label is 'tie': write it for pairs without a better clip."
        )
    return _pair(root, prompt, chosen, rejected, label == "tie", where)


def _from_csv(root: Path, row: dict[str, object], where: str, column: str) -> Pair:
    prompt, first, second = (_files.string(row, key, where) for key in ("prompt", "path_A", "path_B"))
    if column not in row:
        judging = [name for name, value in row.items() if value in JUDGEMENTS]
        raise BadData(
            f"{where}: no column {column!r}; columns with judgements are {', '.join(judging) or 'not there'}: set "
            "dataset.judgement to one of them."
        )
    judgement = row[column]
    if judgement not in JUDGEMENTS:
        raise BadData(f"{where}: {column} is {judgement!r}; allowed are {', '.join(JUDGEMENTS)}.")
    chosen, rejected = (second, first) if judgement == "B" else (first, second)
    return _pair(root, prompt, chosen, rejected, judgement == "same", where)


def build(config: Config) -> PairList:
    """Open a list of judged pairs."""
    return PairList(config)
