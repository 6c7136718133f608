"""Patch features without a network or a download: what stands out, edges, and motion.

Twelve amplitudes a patch, each of at least 0, of RGB in [0, 1]:

| feature | what |
|---|---|
| 0 | contrast: `d^2 / (d^2 + HALF^2)` of the distance d to the frame's background, mean over the patch |
| 1 to 4 | edges one pixel wide across 0, 45, 90 and 135 degrees: root mean square over patch and colours |
| 5 to 8 | the same two pixels wide |
| 9, 10 | change since the frame before, and until the next: root mean square |
| 11 | change of that change: root mean square of half the second difference in time |

The background of a frame is the median colour of its outermost pixels. At either end of a clip the one change there is
stands for both, and the nearest second difference for the missing one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from reelign.batches import Videos
from reelign.errors import BadData
from reelign.parts import PartConfig

HALF = 0.25
"""Distance (RGB) from the background at which contrast is a half."""
AT_ONCE = 2**16
"""Pixels (all frames) of the clips looked at together: few enough that they stay in a processor's cache."""


class Config(PartConfig):
    """How fine the patches are."""

    name: str = "gradients"
    patch: int = Field(default=2, ge=2, multiple_of=2)
    """Side of a patch in pixels."""
    edges: float = Field(default=0.25, ge=0)
    """Weight of features 1 to 8, against contrast."""
    motion: float = Field(default=0.25, ge=0)
    """Weight of features 9 to 11, against contrast."""
    centre: float = Field(default=0.05, ge=0)
    """Contrast added to all but the outermost patches, as a share of the frame's highest. `core.allocation.structure`
    takes the border for background; without this a sprite at the border turns its map over."""


@dataclass(frozen=True, slots=True)
class Gradients:
    """A function of pixels; owns nothing."""

    config: Config
    device: torch.device

    @torch.no_grad()
    def __call__(self, videos: Videos) -> Float[Tensor, "b f n m d"]:
        """Features of every frame; a clip's do not depend on its neighbours.

        Raises:
            BadData: height or width are no multiples of the patch, or there are fewer than two patches along one.
        """
        _, frames, _, height, width = videos.frames.shape
        patch = self.config.patch
        if height % patch or width % patch or min(height, width) < 2 * patch:
            raise BadData(
                f"frames of {height} x {width} pixels do not fall into patches of {patch} x {patch}; "
                "set the backbone's patch to an even divisor of both that leaves at least two along each."
            )
        size = max(1, AT_ONCE // (frames * height * width))
        parts = [self._features(clips.to(self.device, torch.float32)) for clips in videos.frames.split(size)]
        return torch.cat(parts)

    def _features(self, clips: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b f n m d"]:
        patch, each = self.config.patch, clips.flatten(0, 1)
        shape = clips.shape[:2]
        contrast = _contrast(each, patch).unflatten(0, shape)
        inside = F.pad(torch.ones_like(contrast[..., 1:-1, 1:-1]), (1, 1, 1, 1))
        contrast = contrast + self.config.centre * contrast.amax(dim=(2, 3), keepdim=True) * inside
        fine, coarse = _edges(each, patch), _edges(F.avg_pool2d(each, 2), patch // 2)
        edges = [self.config.edges * e.unflatten(0, shape) for e in (*fine, *coarse)]
        motion = [self.config.motion * m for m in _motion(clips, patch)]
        return torch.stack([contrast, *edges, *motion], dim=-1)


def _pooled(maps: Float[Tensor, "*n H W"], patch: int) -> Float[Tensor, "*n h w"]:
    return F.avg_pool2d(maps.flatten(0, -3)[:, None], patch)[:, 0].unflatten(0, maps.shape[:-2])


def _contrast(frames: Float[Tensor, "n 3 H W"], patch: int) -> Float[Tensor, "n h w"]:
    border = torch.cat([frames[..., 0, :], frames[..., -1, :], frames[..., 1:-1, 0], frames[..., 1:-1, -1]], dim=-1)
    square = (frames - border.median(dim=-1).values[..., None, None]).square_().sum(dim=1)
    return _pooled(square.div_(square + HALF**2), patch)


def _edges(frames: Float[Tensor, "n 3 H W"], patch: int) -> list[Float[Tensor, "n h w"]]:
    """Edge amplitudes in four directions, all from the mean products of the two central differences."""
    wide = F.pad(frames, (1, 1, 1, 1), mode="replicate")
    across = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]).div_(2)
    upright = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]).div_(2)
    products = (across * upright, across.square_(), upright.square_())
    xy, xx, yy = (_pooled(p.sum(dim=1), patch) for p in products)
    half = (xx + yy) / 2
    return [energy.clamp_min(0).sqrt() for energy in (xx, half + xy, yy, half - xy)]


def _motion(clips: Float[Tensor, "b f 3 H W"], patch: int) -> list[Float[Tensor, "b f h w"]]:
    """Change from the frame before, to the next, and of that change; zeros where a clip has too few frames."""
    frames = clips.shape[1]
    step = clips.diff(dim=1)
    bend = step.diff(dim=1).div_(2)
    moved, bent = (_pooled(d.square_().sum(dim=2), patch).sqrt_() for d in (step, bend))
    return [_whole(moved, 1, frames), _whole(moved, 0, frames), _whole(bent, 1, frames)]


def _whole(maps: Float[Tensor, "b k h w"], before: int, frames: int) -> Float[Tensor, "b f h w"]:
    """One map a frame: the first and the last are repeated; zeros where there is none."""
    if maps.shape[1] == 0:
        return maps.new_zeros(len(maps), frames, *maps.shape[2:])
    index = torch.arange(-before, frames - before, device=maps.device)
    return maps[:, index.clamp(0, maps.shape[1] - 1)]


build = Gradients
