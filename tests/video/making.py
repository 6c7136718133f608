"""Clips as cameras, phones, recorders and editors write them: numbered frames, encoded one way or another."""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8
from torch import Tensor

SIDE = 32


def numbered(count: int) -> UInt8[np.ndarray, "f 32 32 3"]:
    """Frames that carry their number: 2 x 4 blocks, white for a 1, from the lowest bit at the top left."""
    bits = np.arange(count)[:, None] >> np.arange(8) & 1
    blocks = (bits.reshape(count, 2, 4, 1) * 255).astype(np.uint8)
    return blocks.repeat(16, axis=1).repeat(8, axis=2).repeat(3, axis=3)


def numbers(frames: Float[Tensor, "f 3 H W"]) -> list[int]:
    """Which numbers the frames carry."""
    bits = frames[:, :, 8::16, 4::8].mean(dim=1) > 0.5
    return [int(sum(2**k for k in range(8) if bit.flatten()[k])) for bit in bits]


def stream_of(file: Any, codec: str, side: tuple[int, int], pixels: str, fps: float, **context: Any) -> VideoStream:
    """A video stream of (height, width); `context` sets attributes of its codec context."""
    stream = file.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
    stream.height, stream.width, stream.pix_fmt = *side, pixels
    stream.codec_context.thread_count = 1
    for name, value in context.items():
        setattr(stream.codec_context, name, value)
    return stream


def fill(file: Any, stream: VideoStream, frames: np.ndarray, times: Sequence[int] | None = None) -> None:
    """Encode all frames; `times` in units of the stream's time base, else evenly."""
    source = "rgba" if frames.shape[-1] == 4 else "rgb24"
    for k, pixels in enumerate(frames):
        frame = VideoFrame.from_ndarray(pixels, format=source).reformat(format=stream.pix_fmt, threads=1)
        if times is not None:
            frame.pts, frame.time_base = times[k], stream.codec_context.time_base
        file.mux(stream.encode(frame))
    file.mux(stream.encode())


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    fps: float = 8.0,
    times: Sequence[int] | None = None,
    container: str | None = None,
    **context: Any,
) -> Path:
    """One clip in one file."""
    with av.open(str(path), "w", format=container) as file:
        fill(file, stream_of(file, codec, frames.shape[1:3], pixels, fps, **context), frames, times)
    return path


def recode(source: Path, target: Path, take: Callable[[Any], bool], shift: int = 0) -> Path:
    """Copy packets as they are, as cutters do; `shift` moves them in time, in units of the source's time base."""
    with av.open(str(source)) as file, av.open(str(target), "w") as out:
        stream = file.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in file.demux(stream):
            if packet.size and take(packet):
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                out.mux(packet)
    return target


def box(name: bytes, content: bytes) -> bytes:
    """A box of an mp4."""
    return struct.pack(">I4s", len(content) + 8, name) + content


def put_box(clip: Path, content: bytes) -> None:
    """Put a box at the end of the sample description of an H.264 mp4 whose index is at the end."""
    data = bytearray(clip.read_bytes())
    start, end, outer = 0, len(data), []
    inside = {b"stsd": 16, b"avc1": 86}
    for wanted in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        while data[start + 4 : start + 8] != wanted:
            start += struct.unpack_from(">I", data, start)[0]
        outer.append(start)
        end = start + struct.unpack_from(">I", data, start)[0]
        start += inside.get(wanted, 8)
    for place in outer:
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + len(content))
    data[end:end] = content
    clip.write_bytes(data)
