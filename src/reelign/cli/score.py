"""`reelign score VIDEO... --reward NAME --prompt TEXT`, or `reelign score TABLE.csv --reward NAME`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from reelign.cli import _names
from reelign.cli._console import INSIDE_ONLY, emit
from reelign.errors import BadConfig, BadData, PartFailed, shown
from reelign.face.table import table

if TYPE_CHECKING:
    from reelign.batches import Request
    from reelign.judges import Judge


def command(
    videos: list[Path] = typer.Argument(..., help="One or more video files; or one .csv with the columns file,prompt."),
    prompt: str | None = typer.Option(
        None, "--prompt", "-p", help="What the videos should show; a .csv says it itself."
    ),
    rewards: list[str] = typer.Option(
        [], "--reward", "-r", autocompletion=_names.rewards, help="Reward by name; repeatable."
    ),
    metrics: list[str] = typer.Option(
        [], "--metric", "-m", autocompletion=_names.metrics, help="Held-out measure by name; repeatable."
    ),
    as_json: bool = typer.Option(False, "--json", help="Results as JSON."),
    no_outside_parts: bool = INSIDE_ONLY,
) -> None:
    """Score videos against what they should show."""
    from reelign import parts

    if not rewards and not metrics:
        raise BadConfig(
            f"score needs --reward or --metric; rewards: {', '.join(parts.available('reward'))}; "
            f"metrics: {', '.join(parts.available('metric'))}."
        )
    for name in rewards:
        parts.refuse_unknown("reward", name)
    for name in metrics:
        parts.refuse_unknown("metric", name)
    clips = _clips(videos, prompt)

    from reelign.face import scoring

    asked = scoring.built(rewards, metrics)
    for clip in clips:
        with _told_of(clip):
            for judge in asked:
                judge.check_requests((clip.request,))
    rows = []
    for clip in clips:
        values = _scores(clip, asked)
        rows.append({"video": str(clip.path), **({} if prompt else {"prompt": clip.prompt}), **values})
    names = list(rows[0])
    emit(rows, as_json, table(names, [[row[n] for n in names] for row in rows]))


class _Clip(NamedTuple):
    """A video, what it should show and begin from; `row` is where a table says so, or nothing."""

    path: Path
    prompt: str
    row: str = ""
    given: Mapping[str, Path] = {}

    @property
    def request(self) -> "Request":
        """As rewards and metrics take it."""
        from reelign.batches import Request

        return Request(self.prompt, given=self.given)


@contextmanager
def _told_of(clip: _Clip) -> Iterator[None]:
    """Name the row of a table, or else the file, before what is wrong with it."""
    try:
        yield
    except (BadData, PartFailed) as error:
        named = not clip.row and str(clip.path) in str(error)
        raise type(error)(str(error) if named else f"{clip.row or clip.path}: {error}") from error


def _clips(videos: list[Path], prompt: str | None) -> list[_Clip]:
    """Files with their prompts, from the command line or from a table; names in a table start from its folder."""
    tables = [path for path in videos if path.suffix.lower() == ".csv"]
    if not tables:
        if not (prompt or "").strip():
            raise BadConfig("score needs --prompt, or a .csv with the columns file,prompt.")
        found = [_Clip(path, str(prompt)) for path in videos]
    elif len(videos) > 1 or prompt is not None:
        raise BadConfig(f"{shown(str(tables[0]))} says files and prompts; give it alone, without --prompt.")
    else:
        found = _rows(tables[0])
    for clip in found:
        for what, path in (("video", clip.path), *clip.given.items()):
            if not path.is_file():
                with _told_of(clip):
                    raise BadData(f"there is no {what} at {shown(str(path))}; check the path.")
    return found


def _rows(path: Path) -> list[_Clip]:
    from reelign.datasets import _tables
    from reelign.datasets.prompt_file import GIVEN

    found = []
    for number, row in _tables.csv_rows(path):
        where = f"{path}, line {number}"
        _tables.only(row, ("file", "prompt", *GIVEN), where)
        name, text = _tables.string(row, "file", where), _tables.line(row, "prompt", where)
        given = {kind: path.parent / _tables.string(row, kind, where) for kind in GIVEN if row.get(kind)}
        found.append(_Clip(path.parent / name, text, where, given))
    if not found:
        raise BadData(f"{path} has no rows; write a file and its prompt in each.")
    return found


def _scores(clip: _Clip, asked: Sequence["Judge"]) -> dict[str, float | None]:
    """What all judges give for one video.

    Raises:
        BadData: the video cannot be read, or is of a size that a judge does not read.
        PartFailed: a judge that misbehaved.
    """
    from reelign import video
    from reelign.batches import Videos
    from reelign.face import scoring

    with _told_of(clip):
        frames, fps = video.read(clip.path)
        found = scoring.judged(asked, Videos(frames[None], fps), (clip.request,), clip.row or str(clip.path))
    return {name: value for name, (value,) in found.items()}
