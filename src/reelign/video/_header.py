"""What a file holds and when its frames are shown, without decoding more than the first of them."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from reelign.errors import BadData
from reelign.video._opening import MENDING, clips_of, opened, status
from reelign.video._pictures import display

EVEN = 0.25
"""Share of a frame's time by which it may come early or late in an even clip."""
ROUNDING = 1e-9
"""Seconds that are added to a moment, so that halves round up."""
REMEMBERED = 2**14
"""Headers that a process keeps, so that a data set which is opened again looks at changed files only."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its clip, checked against its packets; height and width as displayed, in pixels."""

    frames: int
    height: int
    width: int
    fps: float
    """Of an uneven clip, on average."""
    moments: "array[float]" = field(default_factory=lambda: array("d"))
    """Seconds from the first frame at which each comes on, and at which the last one ends; empty: k / fps."""
    notes: tuple[str, ...] = ()
    """What had to be done so that its frames are what a player shows, in words such as "turned"."""
    origin: int | None = field(default=None, compare=False)
    """The first frame's time stamp, in the stream's units; None: the stamps cannot be searched by."""

    def __str__(self) -> str:
        """As sentences need it: `13 frames of 32x32 at 8 fps`, width first."""
        rate = f"{self.fps:g} fps" if self.even else f"uneven {self.fps:g} fps"
        return f"{self.frames} frames of {self.width}x{self.height} at {rate}"

    @property
    def even(self) -> bool:
        """Whether frame k is shown at k / fps; the last one may stay."""
        return not self.moments or _even(self.moments[:-1], self.fps)

    @property
    def pace(self) -> float:
        """Frames a second where the picture moves: of an uneven clip, what half of its frames have at least."""
        if self.even:
            return self.fps
        return 1 / max(median(later - earlier for earlier, later in pairwise(self.moments)), 1e-6)

    def shown(self, count: int, fps: float, start: float = 0.0) -> list[int]:
        """Which frames are on screen at `start + k / fps` seconds for k below `count`.

        A frame counts from half of its time before it comes on, or half of the time of the one before if that is less:
        so an even clip gives the nearest frames, and a still stays until the picture moves again.

        Returns:
            `count` indices, ascending; `frames` where the clip has ended.
        """
        if not self.moments:
            return [min(self.frames, int(start * self.fps + k * self.fps / fps + 0.5)) for k in range(count)]
        times = [later - earlier for earlier, later in pairwise(self.moments)]
        early = [0.0, *(min(pair) / 2 for pair in pairwise(times)), min(times[-2:]) / 2]
        begins = [moment - before for moment, before in zip(self.moments, early, strict=True)]
        return [bisect_right(begins, start + k / fps + ROUNDING) - 1 for k in range(count)]

    def latest(self, count: int, fps: float) -> float:
        """The last start in seconds from which `shown` finds all of its frames; below 0 if there is none."""
        end = self.moments[-2] if self.moments else (self.frames - 1) / self.fps
        return end - (count - 1) / fps

    def index(self, seconds: float) -> int:
        """Which frame has a time stamp so many seconds after the first one's."""
        if not self.moments:
            return round(seconds * self.fps)
        after = bisect_right(self.moments, seconds, hi=self.frames)
        return min(max(0, after - 1), min(after, self.frames - 1), key=lambda k: abs(self.moments[k] - seconds))


def probe(path: str | Path) -> Header:
    """What a file holds, from its header, its first frame and the list of its packets: 0.5 ms for a tiny clip.

    Raises:
        BadData: missing, empty, cut off, of no kind that is read, without video, or with frames that players do not
            show as they are. Damage inside a packet shows only when it is read.
    """
    path = Path(path)
    found = status(path)
    return _probed(path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(REMEMBERED)
def _probed(path: Path, version: tuple[int, ...]) -> Header:
    """`version` changes when the file does."""
    with opened(path) as (container, stream):
        packets, first = _packets(path, container, stream)
        shown_as = display(path, first, stream.sample_aspect_ratio)
        rates = [float(rate) for rate in (stream.average_rate, stream.base_rate) if rate]
        if not rates:
            raise BadData(f"{path} does not say its frame rate; {MENDING}.")
        origin = None
        if container.format.name != "avi":  # whose stamps tell an order only
            origin = first.pts
            # A clip that was cut without encoding it again begins with frames that lean on missing ones: nobody shows
            # them.
            packets = [p for p in packets if origin is None or p.pts is None or p.pts >= origin] or packets
        fps, moments = _clock(packets, stream.time_base or Fraction(1), rates)
        notes = [shown_as.note] if shown_as.note else []
        if first.interlaced_frame:
            notes.append("deinterlaced")
        if (clips := len(clips_of(container))) > 1:
            notes.append(f"read from the best of {clips} video streams")
        return Header(len(packets), *shown_as.size, fps, moments, tuple(notes), origin)


class Stamp(NamedTuple):
    """When a packet's frame is shown and decoded, and for how long, in the stream's units."""

    pts: int | None
    dts: int | None
    duration: int


def _packets(path: Path, container: InputContainer, stream: VideoStream) -> tuple[list[Stamp], VideoFrame]:
    """The packets whose frames are shown, and the first frame."""
    shown: list[Stamp] = []
    first = None
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise damaged(path, len(shown), stream.frames)
        if first is None:
            first = next(iter(packet.decode()), None)
        if packet.size and not packet.is_discard:
            shown.append(Stamp(packet.pts, packet.dts, packet.duration or 0))
    if first is None or first.is_corrupt or not shown:
        raise damaged(path, 0, stream.frames)
    return shown, first


def _clock(stamps: list[Stamp], unit: Fraction, rates: list[float]) -> tuple[float, "array[float]"]:
    """Frame rate and, unless the frames are even, their moments."""
    by_order = any(stamp.pts is None for stamp in stamps)
    marks = [(stamp.dts if by_order else stamp.pts, stamp.duration) for stamp in stamps]
    known = sorted((mark, duration) for mark, duration in marks if mark is not None)
    if len(known) < len(marks) or (len(known) > 1 and known[0][0] == known[-1][0]):
        return rates[0], array("d")  # a file without times is played at its rate
    begin = known[0][0]
    moments = array("d", [float((mark - begin) * unit) for mark, _ in known])
    if len(known) > 1:
        rates = [*rates, (len(known) - 1) / moments[-1]]
    fps = next((rate for rate in rates if _even(moments, rate)), rates[-1])
    end = moments[-1] + (float(known[-1][1] * unit) or 1 / fps)
    if _even(moments, fps) and end * fps <= len(known) + EVEN:
        return fps, array("d")
    moments.append(end)
    return fps, moments


def _even(moments: Iterable[float], fps: float) -> bool:
    return all(abs(moment * fps - k) <= EVEN for k, moment in enumerate(moments))


def damaged(path: Path, found: int, announced: int) -> BadData:
    """The sentence for a file of which not all frames can be read."""
    return BadData(f"{path} is damaged or cut off: {found} of its {announced} frames can be read; {MENDING}.")
