"""Prompts from a file: `.txt`, one a line, or `.jsonl`, one `{"prompt": ..., "slices": {...}, "id": ...}` a line.

A .jsonl line may also say what guidance leads away from (`negative`), a picture or clip to begin from (`first_frame`,
`last_frame`, `clip`: a file beside the list), and `size`, `[frames, height, width]`. A draw takes prompts of one size.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from reelign.batches import Prompts, Request, Size, requests
from reelign.core import rng
from reelign.datasets import _files, _tables
from reelign.datasets._draw import Source, digest
from reelign.errors import BadData, cut, shown
from reelign.parts import PartConfig

GIVEN = ("first_frame", "last_frame", "clip")
KEYS = ("prompt", "negative", *GIVEN, "size", "slices", "id")
LARGEST_ID = 2**63
"""Ids are below it, either way."""


class Config(PartConfig):
    """Where the prompts stand."""

    name: str = "prompt_file"
    gives: ClassVar = frozenset({"prompts"})
    path: _files.UserPath
    """A .txt file (blank lines and lines that begin with # are passed over), or a .jsonl file."""
    seed: int = 0
    """Of the shuffles."""


class PromptFile(Source):
    """Prompts in file order; repeated ones are kept, and counted in `counts`."""

    def __init__(self, config: Config) -> None:
        """Read the whole file.

        Raises:
            BadData: missing, neither .txt nor .jsonl, not UTF-8, without prompts, or a line that does not fit.
        """
        super().__init__(config, str(config.path))
        readers = {".txt": _from_text, ".jsonl": _from_json}
        reader = readers.get(config.path.suffix.lower())
        if reader is None:
            raise BadData(
                f"{cut(str(config.path), 200)} is neither .txt nor .jsonl; give one prompt a line (.txt), or "
                "one object (.jsonl)."
            )
        self._all = reader(config.path)
        size = len(self._all.texts)
        if not size:
            raise BadData(f"{config.path} holds no prompts; write one a line.")
        self.counts = {"prompts": size, "duplicates": size - len(set(self._all.texts))}

    @property
    def notes(self) -> tuple[str, ...]:
        """How many prompts there are, and how many repeat others."""
        repeats = f"; {self.counts['duplicates']} of them repeat others" if self.counts["duplicates"] else ""
        return (f"{_files.counted(self.counts['prompts'], 'prompt')} read{repeats}.",)

    def identity(self) -> dict[str, str | int]:
        """How many prompts there are, and a digest of their texts, ids and slices."""
        rows = (_row(r) for r in self._all.requests)
        return {"prompts": len(self._all), "sha256": digest(rows)}

    def all_prompts(self) -> Prompts:
        """Every prompt, in file order."""
        return self._all


def _from_text(path: Path) -> Prompts:
    lines = [" ".join(line.split()) for line in _files.text(path).split("\n")]
    texts = tuple(line for line in lines if line and not line.startswith("#"))
    return Prompts(requests(texts))


def _from_json(path: Path) -> Prompts:
    root, found, names = path.parent.resolve(), [], []
    for number, row in _tables.json_rows(path):
        where = f"{path}, line {number}"
        text = _tables.line(row, "prompt", where)
        _tables.only(row, KEYS, where)
        names.append((number, row.get("id")))
        given = {k: _files.inside(root, _tables.string(row, k, where), where) for k in GIVEN if k in row}
        negative = _tables.line(row, "negative", where) if row.get("negative") else row.get("negative")
        if negative not in (None, "") and not isinstance(negative, str):
            raise BadData(f"{where}: 'negative' is {shown(negative)}; write what guidance is to lead away from.")
        slices, size = _slices(row.get("slices", {}), where), _size(row.get("size"), where)
        found.append(Request(text, negative=negative, given=given, slices=slices, size=size))
    return Prompts(tuple(replace(request, id=i) for request, i in zip(found, _ids(path, names), strict=True)))


def _size(value: object, where: str) -> Size | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 3 and all(type(v) is int and v > 0 for v in value):
        frames, height, width = value
        return frames, height, width
    raise BadData(f"{where}: 'size' is {shown(value)}; write frames, height and width, as in [49, 480, 832].")


def _slices(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise BadData(f'{where}: \'slices\' is {shown(value)}; write names and texts, as in {{"color": "red"}}.')
    return {_tables.valid(key, where): _tables.valid(text, where) for key, text in value.items()}


def _ids(path: Path, names: Sequence[tuple[int, object]]) -> tuple[int, ...]:
    """Whole numbers stay what they are and texts become 63-bit numbers; without any id the position is the id."""
    if all(name is None for _, name in names):
        return tuple(range(len(names)))
    first_line: dict[int, int] = {}
    for number, name in names:
        where = f"{path}, line {number}"
        if isinstance(name, bool) or not isinstance(name, int | str):
            raise BadData(f"{where}: 'id' is {shown(name)}; give every line a text or a whole number, or none an id.")
        if isinstance(name, int) and abs(name) >= LARGEST_ID:
            raise BadData(
                f"{where}: 'id' is {shown(name)}; whole numbers of up to 63 bits are ids: write it as a text."
            )
        key = name if isinstance(name, int) else rng.seed_for(0, "prompt id", _tables.valid(name, where))
        if key in first_line:
            raise BadData(f"{where}: id {shown(name)} stands in line {first_line[key]} too; ids must differ.")
        first_line[key] = number
    return tuple(first_line)


def _row(request: Request) -> list[object]:
    """All of a request, without what it does not have."""
    more = [request.negative, sorted((k, path.name) for k, path in request.given.items()), request.size]
    return [request.text, request.id, sorted(request.slices.items()), *(more if any(more) else ())]


def build(config: Config) -> PromptFile:
    """Read a file of prompts."""
    return PromptFile(config)
