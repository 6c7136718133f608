"""Clips side by side: the same prompt and noise through all the stages, as far as one page can hold them."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import av.error

from reelign.records import Clip, Sample
from reelign.report import words
from reelign.report.load import BASE, Run

EMBEDDED_MIB = 96
"""Most video that one page holds; browsers grow slow well before 200 MiB."""


@dataclass(frozen=True, slots=True)
class Badge:
    """One measure of one clip: `tone` is right, wrong, plain (a score) or none (does not apply)."""

    measure: str
    name: str
    value: str
    tone: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One clip in the grid; without `src`, `absent` says why there is no video."""

    label: str
    src: str
    width: int
    height: int
    fps: float
    absent: str
    badges: tuple[Badge, ...]


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One prompt and member through all the stages. `change` compares right answers at the end with the base's."""

    number: int
    prompt: str
    member: int
    seed: int
    slices: dict[str, str]
    change: str
    clips: tuple[Shown, ...]


def clip_rows(run: Run) -> tuple[tuple[ClipRow, ...], int]:
    """Rows of the side-by-side grid, and how many more did not fit into the page.

    A row is there if any evaluation kept its video. Rows come in prompt order, the members of a prompt together.
    """
    keyed = {
        label: {(clip.prompt_id, clip.member, clip.prompt): clip for clip in evaluation.clips}
        for label, evaluation in run.evaluations.items()
    }
    keys = sorted({key for clips in keyed.values() for key, clip in clips.items() if clip.video is not None})
    final = run.final.label if run.final else BASE
    rows: list[ClipRow] = []
    room = EMBEDDED_MIB * 2**20
    for position, key in enumerate(keys):
        clips = {label: found[key] for label, found in keyed.items() if key in found}
        paths = {label: run.video(clip) for label, clip in clips.items()}
        room -= sum(size(path) for path in paths.values())
        if room < 0:
            return tuple(rows), len(keys) - position
        measured = [m for m in run.measures if any(c.measures.get(m) is not None for c in clips.values())]
        films = tuple(
            shown(label, clips.get(label), paths.get(label), _badges(run, clips.get(label), measured))
            for label in keyed
        )
        some = next(iter(clips.values()))
        change = _change(run, final, clips, measured)
        rows.append(ClipRow(len(rows), some.prompt, some.member, some.seed, dict(some.slices), change, films))
    return tuple(rows), 0


def filters(rows: Sequence[ClipRow]) -> dict[str, list[str]]:
    """Values of each kind of slice among the shown rows; a kind with one value filters nothing and is left out."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for kind, value in row.slices.items():
            values.setdefault(kind, set()).add(value)
    return {kind: sorted(found) for kind, found in values.items() if len(found) > 1}


def size(path: Path | None) -> int:
    """Bytes of a file; none where there is none."""
    try:
        return path.stat().st_size if path else 0
    except OSError:  # it went since it was found
        return 0


def shown(label: str, clip: Clip | Sample | None, path: Path | None, badges: tuple[Badge, ...]) -> Shown:
    """A clip as the page holds it, or why there is no video of it."""

    def absent(why: str) -> Shown:
        return Shown(label, "", 1, 1, 0.0, why, badges)

    if clip is None:
        return absent("not evaluated")
    if path is None:
        return absent("no video kept" if clip.video is None else "video file missing")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            width, height, fps = stream.width, stream.height, float(stream.average_rate or 0)
        content = path.read_bytes()
    except (av.error.FFmpegError, IndexError):
        return absent("video file damaged")
    except OSError:
        return absent("video file cannot be read")
    src = "data:video/mp4;base64," + base64.b64encode(content).decode("ascii")
    return Shown(label, src, width, height, fps, "", badges)


def _badges(run: Run, clip: Clip | None, measured: Sequence[str]) -> tuple[Badge, ...]:
    if clip is None:
        return ()
    badges = []
    for name in measured:
        value = clip.measures.get(name)
        better_up = run.measures[name].higher_is_better
        if value is None:
            badges.append(Badge(name, words.badge(name, None), "does not apply", "none"))
        elif name in run.rates:
            right = (value == 1.0) == better_up
            verdict = "right" if right else "wrong"
            badges.append(Badge(name, words.badge(name, right, better_up), verdict, verdict))
        else:
            badges.append(Badge(name, words.badge(name, None), words.number(value), "plain"))
    return tuple(badges)


def _change(run: Run, final: str, clips: dict[str, Clip], measured: Sequence[str]) -> str:
    """Whether the final clip has more right answers than the base's ("gained"), fewer ("lost") or as many ("same")."""
    if BASE not in clips or final not in clips:
        return "same"
    first, last = clips[BASE], clips[final]
    balance = 0.0
    for name in measured:
        before, after = first.measures.get(name), last.measures.get(name)
        if name in run.rates and before is not None and after is not None:
            balance += (after - before) * (1 if run.measures[name].higher_is_better else -1)
    return "gained" if balance > 0 else "lost" if balance < 0 else "same"
