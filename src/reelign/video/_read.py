"""Frames as RGB in [0, 1]: those that a player shows at the moments asked for."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8
from torch import Tensor

from reelign.errors import BadData, shown
from reelign.video._header import Header, damaged, probe
from reelign.video._opening import opened
from reelign.video._pictures import deinterlaced, display

MOST_VALUES = 2**30
"""Numbers (frames x height x width x 3) that are read from one file at once: 4 GiB of float32."""
FAR = 250
"""Frames that are decoded and dropped rather than searched past."""


class Video(NamedTuple):
    """One decoded clip, RGB in [0, 1]."""

    frames: Float[Tensor, "f 3 H W"]
    fps: float


def read(
    path: str | Path,
    *,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    keep: Sequence[int] | None = None,
) -> Video:
    """Read a clip as RGB in [0, 1].

    Args:
        path: of the file.
        frames: how many frames it must have; None: any number.
        size: (height, width) it must have, in pixels as displayed; None: any.
        keep: indices of the frames to return, ascending, repeats allowed; None: all of an even clip, and of an uneven
            one those on screen at k / fps.

    Raises:
        BadData: as from `probe`; damaged, not the frames or size asked for, or more than `MOST_VALUES`.
    """
    path = Path(path)
    header = probe(path)
    if frames is not None and header.frames != frames:
        raise BadData(
            f"{path} has {header.frames} frames, but {frames} are needed; cut it or render it with {frames} frames."
        )
    if size is not None and (header.height, header.width) != size:
        raise BadData(
            f"{path} is {header.width}x{header.height} pixels (width x height), but {size[1]}x{size[0]} is needed; "
            "resize it or render it at that size."
        )
    if keep is not None and (not keep or keep[0] < 0 or keep[-1] >= header.frames):
        raise BadData(f"{path} has {header.frames} frames; frames {shown(list(keep))} cannot all be taken from it.")
    taken = header.shown(header.frames, header.fps) if keep is None else keep
    most = MOST_VALUES // (header.height * header.width * 3)
    if len(taken) > most:
        raise BadData(f"{path} has {header}, and at most {most} such frames are read at once; cut or shrink it.")
    pictures = _decode(path, header, set(taken), whole=keep is None)
    planes = torch.from_numpy(np.stack([pictures[k] for k in taken])).permute(0, 3, 1, 2)
    return Video(planes.to(torch.float32, memory_format=torch.contiguous_format).div_(255), header.fps)


def _decode(path: Path, header: Header, wanted: set[int], whole: bool) -> dict[int, UInt8[np.ndarray, "H W 3"]]:
    """The wanted pictures by number. What lies far inside is searched for; if that fails, all before it is decoded."""
    if min(wanted) > FAR and header.origin is not None:
        with suppress(BadData):
            pictures, _ = _pictures(path, header, wanted, max(wanted), begin=min(wanted))
            if pictures.keys() == wanted:
                return pictures
    pictures, seen = _pictures(path, header, wanted, header.frames if whole else max(wanted))
    if pictures.keys() != wanted or (whole and seen != header.frames):
        raise damaged(path, seen, header.frames)
    return pictures


def _pictures(
    path: Path, header: Header, wanted: set[int], last: int, begin: int = 0, deinterlace: bool = False
) -> tuple[dict[int, UInt8[np.ndarray, "H W 3"]], int]:
    """Wanted pictures by number, and how many frames up to `last` were decoded, beginning a little before `begin`."""
    pictures: dict[int, UInt8[np.ndarray, "H W 3"]] = {}
    reformatter, shown_as, seen = VideoReformatter(), None, 0
    with opened(path, threads=True) as (container, stream):
        unit, origin = stream.time_base or 0, header.origin or 0
        if begin:
            seconds = header.moments[begin] if header.moments else begin / header.fps
            container.seek(origin + int(seconds / unit), stream=stream)
        frames = container.decode(stream)
        for frame in deinterlaced(stream, frames) if deinterlace else frames:
            if frame.is_corrupt:
                raise damaged(path, seen, header.frames)
            if frame.interlaced_frame:
                return _pictures(path, header, wanted, last, begin, deinterlace=True)
            shown_as = shown_as or display(path, frame, stream.sample_aspect_ratio)
            if shown_as.size != (header.height, header.width):
                raise damaged(path, seen, header.frames)
            number = header.index(float((frame.pts - origin) * unit)) if begin and frame.pts is not None else seen
            if number in wanted:
                pictures[number] = shown_as.picture(path, frame, reformatter)
            seen += 1
            if number >= last:
                break
    return pictures, seen
