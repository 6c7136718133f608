"""Clips side by side: the same prompt and noise through all the stages, as far as one page can hold them."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import av.error

from reelign.records import Clip, Sample
from reelign.report import words
from reelign.report.run import BASE, Run

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
class Line:
    """A prompt and member through all the stages under one sampler, which `title` names where there are several."""

    title: str
    clips: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One prompt and member, a line a sampler. `change` compares right answers at the end with the base's."""

    number: int
    prompt: str
    member: int
    seed: int
    slices: dict[str, str]
    change: str
    lines: tuple[Line, ...]


def clip_rows(run: Run) -> tuple[tuple[ClipRow, ...], int]:
    """Rows of the side-by-side grid, and how many more did not fit into the page.

    A row is there if any evaluation kept its video. Rows come in prompt order, the members of a prompt together.
    """
    views = [(view, _keyed(view)) for view in run.views]
    keys = sorted(
        {key for _, keyed in views for of in keyed.values() for key, clip in of.items() if clip.video is not None}
    )
    rows: list[ClipRow] = []
    room = EMBEDDED_MIB * 2**20
    for position, key in enumerate(keys):
        takes = [_Take.of(view, keyed, key) for view, keyed in views]
        room -= sum(size(path) for take in takes for path in take.paths.values())
        if room < 0:
            return tuple(rows), len(keys) - position
        lines = tuple(take.line() for take in takes if take.clips)
        first = next(take for take in takes if take.clips)
        some = next(iter(first.clips.values()))
        rows.append(ClipRow(len(rows), some.prompt, some.member, some.seed, dict(some.slices), first.change, lines))
    return tuple(rows), 0


Key = tuple[int, int, str]
"""Prompt, member and text."""


def _keyed(view: Run) -> dict[str, dict[Key, Clip]]:
    """The clips of each evaluation."""
    return {
        label: {(clip.prompt_id, clip.member, clip.prompt): clip for clip in evaluation.clips}
        for label, evaluation in view.evaluations.items()
    }


@dataclass(frozen=True, slots=True)
class _Take:
    """A prompt and member under one sampler: its clips by label, and where their videos lie."""

    view: Run
    clips: dict[str, Clip]
    paths: dict[str, Path | None]

    @classmethod
    def of(cls, view: Run, keyed: dict[str, dict[Key, Clip]], key: Key) -> "_Take":
        clips = {label: found[key] for label, found in keyed.items() if key in found}
        return cls(view, clips, {label: view.video(clip) for label, clip in clips.items()})

    @property
    def measured(self) -> list[str]:
        """Measures that any of the clips has."""
        return [m for m in self.view.measures if any(c.measures.get(m) is not None for c in self.clips.values())]

    @property
    def change(self) -> str:
        """See `_change`."""
        final = self.view.final.label if self.view.final else BASE
        return _change(self.view, final, self.clips, self.measured)

    def line(self) -> Line:
        """The clips as they are shown."""
        measured = self.measured
        films = (
            shown(label, clip, self.paths.get(label), _badges(self.view, clip, measured))
            for label in self.view.evaluations
            for clip in [self.clips.get(label)]
        )
        return Line(self.view.title, tuple(films))


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
