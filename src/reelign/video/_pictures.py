"""From a decoded frame to the picture that a player shows: colours, shape, turns and mirrors, fields."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

from reelign.errors import BadData
from reelign.video._opening import MENDING, transparent

SQUARE = 0.01
"""Relative difference of a pixel's sides that counts as none; scaling to even sizes leaves as much behind."""

_HDR: dict[int, str] = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
_UNSPECIFIED = 2
_MATRICES = (0, 1, _UNSPECIFIED, 4, 5, 6, 7, 9)
"""Matrices of ITU-T H.273 that FFmpeg's scaler knows: RGB, BT.709, none given, FCC, BT.601 twice, 240M, BT.2020."""
_HD = (1280, 576)
"""Width from which, and height above which, players take a clip that names no matrix for BT.709."""
_PACKED = range(1, 8)
"""Numbers of the layouts that hold two views in one picture, in FFmpeg's stereo side data."""


@dataclass(frozen=True, slots=True)
class Display:
    """How the frames of one clip are shown. `height` and `width` are those shown, in pixels."""

    stored: tuple[int, int]
    """Height and width of the frames that the decoder gives."""
    stretched: tuple[int, int]
    """Height and width once the pixels are square."""
    transposed: bool
    upside_down: bool
    """After transposing, as is `mirrored`."""
    mirrored: bool
    matrix: Colorspace | None
    """None: what each frame says."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        height, width = self.stretched
        return (width, height) if self.transposed else (height, width)

    @property
    def note(self) -> str:
        """What sets the pictures apart from the frames, in words; empty: nothing."""
        changes = {"turned": self.transposed or (self.upside_down and self.mirrored)}
        changes["mirrored"] = self.transposed == (self.upside_down == self.mirrored)
        changes["stretched"] = self.stretched != self.stored
        return " and ".join(change for change, there in changes.items() if there)

    def picture(self, path: Path, frame: VideoFrame, reformatter: VideoReformatter) -> UInt8[np.ndarray, "H W 3"]:
        """One frame as it is shown.

        Raises:
            BadData: it has another size than the clip's first frame, or is transparent somewhere.
        """
        if (frame.height, frame.width) != self.stored:
            height, width = self.stored
            raise BadData(
                f"{path} changes its size from {width}x{height} to {frame.width}x{frame.height} pixels; {MENDING}."
            )
        alpha = _has_alpha(frame)
        height, width = self.stretched
        pixels = reformatter.reformat(
            frame,
            format="rgba" if alpha else "rgb24",
            height=height,
            width=width,
            src_colorspace=self.matrix,
            threads=1,  # by default each frame gets threads of its own, 70 times slower
        ).to_ndarray()
        if alpha:
            if _see_through(pixels):
                raise BadData(transparent(path))
            pixels = pixels[..., :3]
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]


def display(path: Path, frame: VideoFrame, aspect: Fraction | None) -> Display:
    """How a clip is shown, from its first frame.

    Args:
        path: for the sentence.
        frame: the first one.
        aspect: width of a pixel through its height; None or 0: square.

    Raises:
        BadData: in HDR, transparent, as a sphere, in two views, with a colour matrix that is not read, or turned
            otherwise than by quarter turns.
    """
    if curve := _HDR.get(frame.color_trc):
        raise BadData(f"{path} is HDR ({curve}), which players map to the screen's range; convert it to SDR.")
    if frame.colorspace not in _MATRICES:
        raise BadData(f"{path} has colours of a kind that is not read (matrix {frame.colorspace}); convert it to SDR.")
    if "SPHERICAL" in frame.side_data:
        raise BadData(f"{path} is a sphere (360 degrees), of which players show a view; render that view.")
    if "STEREO3D" in frame.side_data and struct.unpack_from("i", frame.side_data["STEREO3D"])[0] in _PACKED:
        raise BadData(f"{path} holds two views in one picture (3D); render one of them.")
    if _has_alpha(frame) and _see_through(frame.reformat(format="rgba", threads=1).to_ndarray()):
        raise BadData(transparent(path))
    aspect = aspect or Fraction(1)
    height, width = frame.height, frame.width
    if aspect > 1 + SQUARE:
        width = round(width * aspect)
    elif aspect < 1 - SQUARE:
        height = round(height / aspect)
    named = frame.colorspace != _UNSPECIFIED or frame.format.is_rgb
    hd = frame.width >= _HD[0] or frame.height > _HD[1]
    matrix = Colorspace.ITU709 if hd and not named else None
    return Display((frame.height, frame.width), (height, width), *_orientation(path, frame), matrix)


def _has_alpha(frame: VideoFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def _see_through(pixels: UInt8[np.ndarray, "H W 4"]) -> bool:
    return bool(pixels[..., 3].min() < 255)


def _orientation(path: Path, frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Whether to transpose the picture, and then to turn its rows and its columns around."""
    if "DISPLAYMATRIX" not in frame.side_data:
        return False, False, False
    # Of a stored pixel (x to the right, y down), x' = a x + c y and y' = b x + d y; scale and shift do not matter.
    a, b, _, c, d = struct.unpack_from("5i", frame.side_data["DISPLAYMATRIX"])
    if a and d and not b and not c:
        return False, d < 0, a < 0
    if b and c and not a and not d:
        return True, b < 0, c < 0
    raise BadData(f"{path} is to be shown turned by {frame.rotation} degrees; only quarter turns are read: {MENDING}.")


def deinterlaced(stream: VideoStream, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """One full frame for each frame made of two fields, by FFmpeg's bwdif; other frames as they are."""
    graph = Graph()
    source, sink = graph.add_buffer(template=stream), graph.add("buffersink")
    whole = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    source.link_to(whole)
    whole.link_to(sink)
    graph.configure()
    for frame in frames:
        graph.vpush(frame)
        yield from _ready(graph)
    graph.vpush(None)
    yield from _ready(graph)


def _ready(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (BlockingIOError, EOFError):  # it waits for the next frame, or has given its last
            return
