"""Cutting a clip to what a model makes: which frames, which part of the picture."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from reelign import video
from reelign.core import rng
from reelign.protocols import Geometry

Fit = Literal["exact", "resize"]
Start = Literal["first", "middle", "random"]

SAME_FPS = 0.01
"""Relative difference of frame rates that counts as none (24 and 24000/1001 are the same)."""
SLOWER = 0.1
"""Share by which a clip that is cut may have fewer frames a second than the model: every tenth frame comes twice."""


def frames(header: video.Header, geometry: Geometry, start: Start, seed: int) -> list[int]:
    """Which frames show a clip at the model's frame rate.

    Args:
        header: of the clip.
        geometry: of the model.
        start: the part of a longer clip: its first seconds, the middle, or a part that `seed` draws.
        seed: of this clip's draw.

    Returns:
        `geometry.frames` indices. The last is the clip's number of frames where it is too short.
    """
    spare = max(0.0, header.latest(geometry.frames, geometry.fps))
    share = rng.uniform([1], seed=seed).item() if start == "random" else {"first": 0.0, "middle": 0.5}[start]
    return header.shown(geometry.frames, geometry.fps, spare * share)


def pixels(clip: Float[Tensor, "f 3 H W"], height: int, width: int) -> Float[Tensor, "f 3 h w"]:
    """The largest centred part of that aspect ratio, resized bilinearly (anti-aliased)."""
    _, _, full_height, full_width = clip.shape
    scale = min(full_height / height, full_width / width)
    crop_height = min(full_height, max(1, round(height * scale)))
    crop_width = min(full_width, max(1, round(width * scale)))
    top, left = (full_height - crop_height) // 2, (full_width - crop_width) // 2
    part = clip[:, :, top : top + crop_height, left : left + crop_width]
    resized = functional.interpolate(part, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    return resized.clamp(0, 1)  # the weights' rounding may leave [0, 1] by an ulp


def misfit(header: video.Header, geometry: Geometry, fit: Fit) -> bool:
    """Whether a clip has not what the model makes ("exact"), or too little to be cut to it ("resize")."""
    if fit == "resize":
        too_short = header.shown(geometry.frames, geometry.fps)[-1] >= header.frames
        return too_short or header.pace < geometry.fps * (1 - SLOWER)
    same_size = (header.frames, header.height, header.width) == (geometry.frames, geometry.height, geometry.width)
    return not same_size or not header.even or abs(header.fps / geometry.fps - 1) > SAME_FPS
