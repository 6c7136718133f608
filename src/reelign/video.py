"""Reading and writing mp4: pixels RGB in [0, 1] on our side, H.264 on disk, one sentence for whatever cannot be read.

How far a clip is from itself after a round trip (playground clips of 32 x 32; worst pixel and mean, in 1/255):

| written with | worst | mean | plays in |
|---|---|---|---|
| `lossless=True` (RGB 4:4:4) | 0.5 | 0.26 | FFmpeg, PyAV, mpv, VLC |
| default (yuv420p), `scale=8` | 6.4 | 0.8 | every browser |
| default (yuv420p), `scale=1` | 184 | 2.8 | every browser |

The 0.5 is the rounding to 8 bits. yuv420p keeps one colour for each 2 x 2 pixels, which a 32 x 32 clip cannot spare:
use `lossless` for clips to train on, and `scale` for clips to look at.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8
from torch import Tensor

from reelign.errors import BadData
from reelign.files import replacing

CRF = 8
"""x264's constant rate factor: the lowest steps that still give a profile browsers play. Smaller is closer."""
MOST_VALUES = 2**30
"""Numbers (frames x height x width x 3) that are read from one file at once: 4 GiB of float32."""
SMALL_FRAME = 2**16
"""Pixels below which starting decoder threads costs more than they save (32 x 32: 3 ms against 1 ms a clip)."""

_BT709 = 1
"""The number of BT.709 in the lists of primaries and transfer functions of ITU-T H.273."""
_LIMITED = int(ColorRange.MPEG)
_MENDING = "copy or render it again"


class Video(NamedTuple):
    """One decoded clip, RGB in [0, 1]."""

    frames: Float[Tensor, "f 3 H W"]
    fps: float


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its clip, checked against its packets; height and width as displayed, in pixels."""

    frames: int
    height: int
    width: int
    fps: float

    def __str__(self) -> str:
        """As sentences need it: `13 frames of 32x32 at 8 fps`, width first."""
        return f"{self.frames} frames of {self.width}x{self.height} at {self.fps:g} fps"


def _refuse_missing(path: Path) -> None:
    if not path.exists():
        raise BadData(f"there is no video at {path}; check the path.")
    if not path.is_file():
        raise BadData(f"{path} is not a file; give the path of one mp4.")
    if path.stat().st_size == 0:
        raise BadData(f"{path} is empty (0 bytes); an mp4 with at least one frame is needed: {_MENDING}.")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its one video stream; FFmpeg's errors inside the block become sentences."""
    _refuse_missing(path)
    try:
        # The absolute path keeps FFmpeg from reading "concat:" or "http:" at the start of a name as a protocol, and the
        # fixed format keeps a play list that is named .mp4 from opening other files.
        with av.open(str(path.absolute()), format="mp4", metadata_errors="replace") as container:
            if not container.streams.video:
                raise BadData(f"{path} has no video stream, or is cut off before it; give an mp4 with pictures.")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise BadData(f"{path} cannot be decoded (unknown codec); {_MENDING}, or convert it to H.264.")
            if stream.height * stream.width < SMALL_FRAME:
                stream.thread_type, stream.thread_count = "NONE", 1
            else:
                stream.thread_type = "AUTO"
            yield container, stream
    except FFmpegError as error:
        raise BadData(
            f"{path} cannot be read as an mp4 ({error.strerror}); {_MENDING}, or convert it to mp4."
        ) from error


def _damaged(path: Path, found: int, announced: int) -> BadData:
    return BadData(f"{path} is damaged or cut off: {found} of its {announced} frames can be read; {_MENDING}.")


def _turns(path: Path, frame: VideoFrame) -> int:
    """Quarter turns counter-clockwise from the stored to the displayed picture (phones store portrait clips turned)."""
    turns, rest = divmod(frame.rotation, 90)
    if rest:
        raise BadData(
            f"{path} is to be shown turned by {frame.rotation} degrees; only quarter turns are read: {_MENDING}."
        )
    return turns % 4


def probe(path: str | Path) -> Header:
    """What a file holds, from its header, its first frame and the list of its packets: 0.5 ms for a tiny clip.

    Raises:
        BadData: missing, empty, truncated, no mp4, no video stream. Damage inside a packet shows only when it is read.
    """
    path = Path(path)
    with _opened(path) as (container, stream):
        return _header(path, container, stream)


def _header(path: Path, container: InputContainer, stream: VideoStream) -> Header:
    shown, first = 0, None
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise _damaged(path, shown, stream.frames)
        if first is None:
            first = next(iter(packet.decode()), None)
        if packet.size and not packet.is_discard:
            shown += 1
    if first is None or first.is_corrupt:
        raise _damaged(path, 0, stream.frames)
    height, width = first.height, first.width
    if _turns(path, first) % 2:
        height, width = width, height
    rate = stream.average_rate or stream.base_rate
    if not rate:
        raise BadData(f"{path} does not say its frame rate; {_MENDING}.")
    return Header(shown, height, width, float(rate))


def read(
    path: str | Path,
    *,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    keep: Sequence[int] | None = None,
) -> Video:
    """Read an mp4 as RGB in [0, 1].

    Args:
        path: of the file.
        frames: how many frames it must have; None: any number.
        size: (height, width) it must have, in pixels as displayed; None: any.
        keep: indices of the frames to return, ascending; None: all.

    Raises:
        BadData: the file is missing, empty, truncated, damaged, no mp4, has no video stream, not the frames or size
            asked for, or more than `MOST_VALUES`.
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
        raise BadData(f"{path} has {header.frames} frames; frames {list(keep)} cannot all be taken from it.")
    kept = header.frames if keep is None else len(keep)
    most = MOST_VALUES // (header.height * header.width * 3)
    if kept > most:
        raise BadData(f"{path} has {header}, and at most {most} such frames are read at once; cut or shrink it.")
    pixels = _decode(path, header, None if keep is None else set(keep))
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return Video(planes.to(torch.float32, memory_format=torch.contiguous_format).div_(255), header.fps)


def _decode(path: Path, header: Header, keep: set[int] | None) -> UInt8[np.ndarray, "f H W 3"]:
    # One reformatter without threads for the whole clip: by default each frame gets a threaded one, 70 times slower.
    reformatter = VideoReformatter()
    pictures: list[np.ndarray] = []
    seen = 0
    with _opened(path) as (container, stream):
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise _damaged(path, seen, header.frames)
            if keep is None or seen in keep:
                rgb = reformatter.reformat(frame, format="rgb24", threads=1)
                pictures.append(np.rot90(rgb.to_ndarray(), _turns(path, frame)))
            seen += 1
            if seen > header.frames or (keep is not None and len(pictures) == len(keep)):
                break
    if seen != header.frames and keep is None:
        raise _damaged(path, seen, header.frames)
    wanted = header.frames if keep is None else len(keep)
    if len(pictures) != wanted or any(p.shape[:2] != (header.height, header.width) for p in pictures):
        raise _damaged(path, seen, header.frames)
    return np.stack(pictures)


def write(
    path: str | Path, frames: Float[Tensor, "f 3 H W"], fps: float | int, scale: int = 1, *, lossless: bool = False
) -> None:
    """Write an mp4 (H.264, index at the front) whole or not at all; the same frames give the same bytes.

    Args:
        path: of the file; its folder is made, an older file is replaced.
        frames: RGB in [0, 1].
        fps: frames a second.
        scale: each pixel becomes scale x scale pixels, so that small clips can be watched.
        lossless: keep every 8-bit value, for clips to train on; browsers do not play these.

    Raises:
        BadData: no frames, values outside [0, 1] or not finite, odd sides in a clip for browsers, a frame rate or scale
            that makes no sense.
        RunStopped: the disk is full, or the place cannot be written.
    """
    path = Path(path)
    if not 0.01 <= fps <= 1000 or scale < 1:
        raise BadData(
            f"cannot write {path} at {fps:g} fps with scale {scale}; allowed are 0.01 to 1000 fps and a scale from 1."
        )
    count, _, height, width = frames.shape
    if 0 in frames.shape:
        raise BadData(f"cannot write {path}: {count} frames of {width}x{height} pixels; give at least one of each.")
    if not lossless and (height * scale % 2 or width * scale % 2):
        raise BadData(
            f"cannot write {path}: {width}x{height} pixels with scale {scale} gives an odd side, which browsers' H.264 "
            "does not have; use an even scale, or lossless=True."
        )
    low, high = frames.min().item(), frames.max().item()
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise BadData(
            f"cannot write {path}: values must lie in [0, 1], given {low:.3g} to {high:.3g}; clamp them first."
        )
    pixels = (frames.detach().cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    pixels = pixels.repeat_interleave(scale, 1).repeat_interleave(scale, 2).contiguous()
    with replacing(path) as temporary:
        _encode(temporary, pixels.numpy(), fps, lossless)


def _encode(path: Path, pixels: UInt8[np.ndarray, "f H W 3"], fps: float | int, lossless: bool) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=rate)
        _, stream.height, stream.width, _ = pixels.shape
        stream.pix_fmt = "rgb24" if lossless else "yuv420p"
        stream.options = {"crf": "0" if lossless else str(CRF)}
        stream.codec_context.thread_count = 1  # several threads would make the bytes depend on their number
        if not lossless:
            stream.codec_context.colorspace = int(Colorspace.ITU709)
            stream.codec_context.color_primaries = _BT709
            stream.codec_context.color_trc = _BT709
            stream.codec_context.color_range = _LIMITED
        reformatter = VideoReformatter()
        for picture in pixels:
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            if not lossless:
                frame = reformatter.reformat(
                    frame,
                    format="yuv420p",
                    dst_colorspace=Colorspace.ITU709,
                    dst_color_range=ColorRange.MPEG,
                    interpolation=Interpolation.AREA,
                    threads=1,
                )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
