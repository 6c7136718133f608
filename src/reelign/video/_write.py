"""Writing H.264 in mp4: whole or not at all, the same bytes for the same frames."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from jaxtyping import Float, UInt8
from torch import Tensor

from reelign.errors import BadData
from reelign.files import replacing

WIDE = 256
"""Pixels: about how wide a small clip is shown where no scale is given."""
CRF = 8
"""x264's constant rate factor: the lowest steps that still give a profile browsers play. Smaller is closer."""

_BT709 = 1
"""The number of BT.709 in the lists of primaries and transfer functions of ITU-T H.273."""
_LIMITED = int(ColorRange.MPEG)


def write(
    path: str | Path,
    frames: Float[Tensor, "f 3 H W"],
    fps: float | int,
    scale: int | None = None,
    *,
    lossless: bool = False,
) -> None:
    """Write an mp4 (H.264, index at the front) whole or not at all; the same frames give the same bytes.

    Args:
        path: of the file; its folder is made, an older file is replaced.
        frames: RGB in [0, 1].
        fps: frames a second.
        scale: each pixel becomes scale x scale pixels, so that small clips can be watched. None keeps lossless clips
            and wide ones as they are, brings small ones to about 256 pixels of width, and makes odd sides even.
        lossless: keep every 8-bit value, for clips to train on; browsers do not play these.

    Raises:
        BadData: no frames, values outside [0, 1] or not finite, odd sides in a clip for browsers, a frame rate or scale
            that makes no sense.
        RunStopped: the disk is full, or the place cannot be written.
    """
    path = Path(path)
    count, _, height, width = frames.shape
    scale = _fitting(height, width, lossless) if scale is None else scale
    if not 0.01 <= fps <= 1000 or scale < 1:
        raise BadData(
            f"cannot write {path} at {fps:g} fps with scale {scale}; allowed are 0.01 to 1000 fps and a scale from 1."
        )
    if 0 in frames.shape:
        raise BadData(f"cannot write {path}: {count} frames of {width}x{height} pixels; give at least one of each.")
    if not lossless and (height * scale % 2 or width * scale % 2):
        raise BadData(
            f"cannot write {path}: {width}x{height} pixels with scale {scale} gives an odd side, which browsers' H.264 "
            "does not have; use an even scale or none, or lossless=True."
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


def _fitting(height: int, width: int, lossless: bool) -> int:
    """The scale where none is given."""
    if lossless:
        return 1
    scale = max(1, WIDE // max(1, width))
    return scale + scale % 2 if height % 2 or width % 2 else scale


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
