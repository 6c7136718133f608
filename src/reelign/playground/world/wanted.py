"""What prompts ask for, as tensors: the one thing that rewards and held-out measures share, for it reads no pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reelign.batches import Request, Videos, texts
from reelign.errors import BadData
from reelign.parts import PartConfig
from reelign.playground.world import grammar, tables
from reelign.playground.world.scene import DIRECTED, FALL, SEQUENCES, STILL, WALLS

MOTIONS = (STILL, *DIRECTED, *WALLS, FALL, *SEQUENCES)
"""Every motion a caption can ask for; a motion's index here is its id."""
Frames = Float[Tensor, "b f 3 H W"]
"""Clips, RGB in [0, 1]."""
READS = (tables.FRAMES, tables.HEIGHT, tables.WIDTH)
"""Frames, height and width of the clips that rewards and measures of the playground read."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Indices into the tables' names; where `asked` is false (no second sprite) a slot holds zeros."""

    asked: Bool[Tensor, "b 2"]
    color: Int[Tensor, "b 2"]
    shape: Int[Tensor, "b 2"]
    size: Int[Tensor, "b 2"]
    motion: Int[Tensor, "b 2"]
    background: Int[Tensor, " b"]
    camera: Int[Tensor, " b"]


@lru_cache(maxsize=65536)
def _row(text: str) -> tuple[list[list[int]], int, int]:
    """What a prompt asks for of its sprites [2 5], and its background and camera."""
    scene = grammar.parse(text)
    colors, sizes, backgrounds, cameras = map(list, (tables.COLORS, tables.RADII, tables.BACKGROUNDS, tables.CAMERAS))
    said = [
        [1, colors.index(s.color), tables.SHAPES.index(s.shape), sizes.index(s.size), MOTIONS.index(s.motion)]
        for s in scene.sprites
    ]
    return [*said, [0] * 5][:2], backgrounds.index(scene.background), cameras.index(scene.camera)


def wanted(prompts: Sequence[str]) -> Wanted:
    """Parse prompts; each different text is parsed once per process.

    Raises:
        UnknownCaption: a prompt is outside the playground's grammar.
    """
    rows = [_row(text) for text in prompts]
    sprites = torch.tensor([row[0] for row in rows], dtype=torch.int64).reshape(len(rows), 2, 5)
    asked, color, shape, size, motion = sprites.unbind(-1)
    background = torch.tensor([row[1] for row in rows], dtype=torch.int64)
    camera = torch.tensor([row[2] for row in rows], dtype=torch.int64)
    return Wanted(asked.bool(), color, shape, size, motion, background, camera)


class Prompted(PartConfig):
    """What judges playground clips by their prompts."""

    reads: ClassVar = READS

    def check_requests(self, requests: Sequence[Request]) -> None:
        """Refuse prompts outside the playground's grammar.

        Raises:
            UnknownCaption: the first of them.
        """
        wanted(texts(requests))


def pixels(videos: Videos) -> Frames:
    """The frames on the CPU in float32, without gradients.

    Raises:
        BadData: the videos are not of the playground's geometry, or hold values that are not finite.
    """
    frames, height, width = READS
    want = (frames, 3, height, width)
    if tuple(videos.frames.shape[1:]) != want:
        raise BadData(
            f"a playground measure was given videos of shape {tuple(videos.frames.shape[1:])}; it reads {want} "
            "(frames, channels, height, width). Use another reward or metric for other videos."
        )
    frames = videos.frames.detach().to("cpu", torch.float32)
    if frames.numel() and not bool(torch.stack(frames.aminmax()).isfinite().all()):  # NaN is both of them
        raise BadData("a playground measure was given pixels that are not finite; look for a diverged model.")
    return frames
