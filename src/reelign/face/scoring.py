"""Scores of clips: a small table by clip and measure."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from reelign import config as configs
from reelign import judges, video
from reelign.batches import Request, Videos
from reelign.errors import BadConfig, BadData, shown
from reelign.face.shots import Shots
from reelign.face.table import cell, table
from reelign.face.typed import plain, sentences
from reelign.judges import Judge, Kind
from reelign.parts import PartConfig, available

Part = str | Mapping[str, Any] | PartConfig | type
"""A reward or metric: its name, its settings, or a class of settings that builds it."""


class Scores(Mapping[str, tuple[float | None, ...]]):
    """Numbers by measure: `scores["playground_motion"]` has one a clip, None where the measure does not apply to it."""

    def __init__(self, clips: Sequence[str], values: Mapping[str, Sequence[float | None]]) -> None:
        """Numbers of clips, which are called by their prompts or files."""
        self.clips = tuple(clips)
        self._values = {name: tuple(column) for name, column in values.items()}

    def __getitem__(self, name: str) -> tuple[float | None, ...]:
        """The column of a measure."""
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def mean(self, name: str) -> float | None:
        """Over the clips to which a measure applies; None where there are none."""
        found = [value for value in self[name] if value is not None]
        return sum(found) / len(found) if found else None

    def _rows(self) -> list[tuple[object, ...]]:
        return list(zip(self.clips, *self._values.values(), strict=True))

    def __repr__(self) -> str:
        return table(("clip", *self), self._rows())

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("clip", *self))
        rows = ("".join(f"<td>{html.escape(cell(value))}</td>" for value in row) for row in self._rows())
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def score(
    clips: Shots | Videos | str | Path | Sequence[str | Path],
    rewards: Part | Sequence[Part] = (),
    metrics: Part | Sequence[Part] = (),
    prompts: str | Request | Sequence[str | Request] | None = None,
) -> Scores:
    """Score clips against what they should show.

    Clips of one prompt and size that stand beside each other are judged together, as `diversity` needs them.

    Args:
        clips: from `sample`; or decoded videos, or video files, with `prompts`.
        rewards: one or more, by name, settings or class.
        metrics: likewise.
        prompts: one for all, or one a clip; by default those of the clips. A `Request` may give what the clip began
            from too, as in `Request("a cat", given={"first_frame": Path("cat.png")})`.

    Raises:
        UnknownPart: a name that no reward or metric has.
        BadConfig: nothing to score by, or not one prompt a clip.
        BadData: a file that is no video, or a clip that a reward or metric does not read.
        PartFailed: a reward or metric that misbehaved.
    """
    with sentences():
        asked = built(_listed(rewards), _listed(metrics))
        several = _videos(clips)
        requests = _requests(prompts, clips, len(several))
        for judge in asked:
            judge.check_requests(requests)
        columns: dict[str, list[float | None]] = {name: [] for judge in asked for name in judge.names}
        for start, end in _together(several, requests):
            frames = torch.cat([each.frames for _, each in several[start:end]])
            where = several[start][0]
            videos = Videos(frames, several[start][1].fps)
            for name, values in judged(asked, videos, requests[start:end], where).items():
                columns[name] += values
    return Scores([name or request.text for (name, _), request in zip(several, requests, strict=True)], columns)


def built(rewards: Sequence[Part], metrics: Sequence[Part]) -> list[Judge]:
    """Rewards and metrics to ask.

    Raises:
        BadConfig: there are none, two give a number of one name, or one cannot be built.
        UnknownPart: a name that none has.
    """
    if not rewards and not metrics:
        raise BadConfig(
            f"score needs a reward or a metric; rewards: {', '.join(available('reward'))}; "
            f"metrics: {', '.join(available('metric'))}."
        )
    wanted: list[tuple[Kind, Part]] = [*(("reward", one) for one in rewards), *(("metric", one) for one in metrics)]
    configured: list[tuple[Kind, PartConfig]] = [(kind, configs.part(kind, plain(one))) for kind, one in wanted]
    asked = [judges.build(kind, config) for kind, config in configured]
    judges.refuse_twice(asked)
    return asked


def judged(
    asked: Sequence[Judge], videos: Videos, requests: Sequence[Request], where: str = ""
) -> dict[str, list[float | None]]:
    """What all judges give by name, one number a video; None where a measure does not apply.

    Raises:
        BadData: the videos are of a size that a judge does not read.
        PartFailed: a judge that misbehaved.
    """
    _, count, _, height, width = videos.frames.shape
    for judge in asked:
        if judge.says.reads not in (None, (count, height, width)):
            size, read = (f"{f} frames of {h} x {w}" for f, h, w in ((count, height, width), judge.says.reads))
            raise BadData(
                f"the {judge.kind} {judge.name!r} reads {read} only, but this video has {size}; write it with "
                "`reelign sample --lossless` and no --scale, or leave that measure out."
            )
    found = judges.ask(asked, videos, requests, where)
    return {name: [None if math.isnan(v) else v for v in values.tolist()] for name, values in found.items()}


def _listed(parts: Part | Sequence[Part]) -> list[Part]:
    return [parts] if isinstance(parts, str | Mapping | PartConfig | type) else list(parts)


def _videos(clips: Any) -> list[tuple[str, Videos]]:
    """Each clip, and the name of its file where it has one."""
    if isinstance(clips, Shots | Videos):
        return [("", Videos(clips.frames[row : row + 1], clips.fps)) for row in range(len(clips))]
    paths = [clips] if isinstance(clips, str | Path) else list(clips)
    if not all(isinstance(path, str | Path) for path in paths):
        raise BadConfig(
            f"a {type(clips).__name__} is no clips; give those of `sample`, reelign.Shots(frames, fps, prompts), or "
            "paths of video files."
        )
    missing = next((path for path in paths if not Path(path).is_file()), None)
    if missing is not None:
        raise BadData(f"there is no video at {shown(str(missing))}; check the path.")
    found = []
    for path in paths:
        frames, fps = video.read(path)
        found.append((str(path), Videos(frames[None], fps)))
    return found


def _requests(prompts: Any, clips: object, n: int) -> list[Request]:
    """What each of `n` clips was asked to be."""
    given = clips.requests if prompts is None and isinstance(clips, Shots) else prompts
    if given is None:
        raise BadConfig(
            "score needs prompts, one for all clips or one a clip; only clips from `sample` have their own."
        )
    each = [given] * n if isinstance(given, str | Request) else list(given)
    asked = [one if isinstance(one, Request) else Request(one) for one in each]
    if len(asked) != n or not all(request.text.strip() for request in asked):
        raise BadConfig(f"there are {n} clips and {len(asked)} prompts, none of which may be empty; give one a clip.")
    return asked


def _together(several: Sequence[tuple[str, Videos]], requests: Sequence[Request]) -> Iterator[tuple[int, int]]:
    """Where neighbours of one prompt and form start and end."""
    asked = [(request.text, request.given) for request in requests]
    forms = [(one, each.frames.shape, each.fps) for (_, each), one in zip(several, asked, strict=True)]
    start = 0
    for end in range(1, len(forms) + 1):
        if end == len(forms) or forms[end] != forms[start]:
            yield start, end
            start = end
