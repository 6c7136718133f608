"""The rewards' judgement: from detections to smooth scores in [0, 1]. Attributes here, motion in `lawful`."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reelign.playground.detector.detect import BACKGROUNDS, LARGE_AREA, SMALL_AREA, Detections
from reelign.playground.world import tables

SHAPE_MOMENTS = torch.tensor([[0.0, 0.74, 0.0], [0.0, 0.99, 0.0], [-0.5, 0.82, 0.27]])
"""Skewness in y, E[x^2 y^2] / (E[x^2] E[y^2]) and E[y^2] / E[x^2] - 1 of the shapes, slightly blurred."""
SHAPE_STD = torch.tensor([0.17, 0.07, 0.12])
SIZE_SPLIT = (SMALL_AREA * LARGE_AREA) ** 0.5
"""Area in pixels between the largest small sprite and the smallest large one."""
SIZE_STD = 0.1
"""In log area; the sizes are apart by 0.64."""


def average(values: Float[Tensor, "b c f *n"], weight: Float[Tensor, "b c f"]) -> Float[Tensor, "b c *n"]:
    """Mean over frames, weighted; 0 where all weights are."""
    spread = weight.reshape(*weight.shape, *([1] * (values.dim() - weight.dim())))
    return (values * spread).sum(dim=2) / spread.sum(dim=2).clamp_min(1e-3)


def _features(moments: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 3"]:
    skew, corner, across, upright = moments.unbind(-1)
    return torch.stack([skew, corner, upright / across.clamp_min(0.05) - 1], dim=-1)


def shapes(moments: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 3"]:
    """How likely circle, square and triangle are, from `Detections.moments`."""
    apart = (_features(moments)[..., None, :] - SHAPE_MOMENTS) / SHAPE_STD
    return (-apart.square().sum(dim=-1) / 4).softmax(dim=-1)


def sizes(area: Float[Tensor, "*n"]) -> Float[Tensor, "*n s"]:
    """How likely small and large are, from an area in pixels."""
    large = torch.sigmoid((area.clamp_min(1.0) / SIZE_SPLIT).log() / SIZE_STD)
    return torch.stack([1 - large, large], dim=-1)


def backgrounds(found: Detections) -> Float[Tensor, "b n"]:
    """How near the backdrop is to each background colour, in [0, 1]."""
    apart = (found.backdrop[:, None] - BACKGROUNDS).square().sum(dim=-1)
    return 1 / (1 + apart / 0.15**2)


def cameras(found: Detections) -> Float[Tensor, "b 3"]:
    """How well the stripes' travel fits each of `tables.CAMERAS`, in [0, 1]; no stripes mean that it is still."""
    turn = (found.wave[:, 1:] * found.wave[:, :-1].conj()).mean(dim=1)
    speed = turn.angle() * tables.TEXTURE_PERIOD / (2 * torch.pi)
    strength = turn.abs().sqrt() / (tables.TEXTURE_AMPLITUDE / 2)
    striped = strength**4 / (1 + strength**4)
    moves = 1 / (1 + ((speed[:, None] - torch.tensor(list(tables.CAMERAS.values()))) / 0.4).square())
    still = torch.tensor([float(name == "still") for name in tables.CAMERAS])
    return torch.lerp(still.expand_as(moves), moves, striped[:, None])


def of(values: Float[Tensor, "b c *n"], color: Int[Tensor, "b 2"]) -> Float[Tensor, "b 2 *n"]:
    """Each prompted sprite's entry of a per-colour table."""
    return values[torch.arange(len(values))[:, None], color]


def centers(found: Detections) -> Float[Tensor, "b c f 2"]:
    """Sprite centres [x, y] in pixels: a triangle's centroid lies a third of its radius below its centre.

    Frames in which a colour is hardly seen take the place it was last (or first) seen at.
    """
    triangle = shapes(average(found.moments, found.seen))[..., 2]
    radius = (average(found.area, found.seen) / 2).sqrt()
    drop = torch.stack([torch.zeros_like(triangle), triangle * radius / 3], dim=-1)
    index = torch.arange(found.area.shape[2]).expand_as(found.seen)
    there = found.seen > 0.3
    last = torch.where(there, index, -1).cummax(dim=2).values
    first = torch.where(there, index, index.shape[2]).amin(dim=2, keepdim=True).clamp_max(index.shape[2] - 1)
    known = torch.where(last >= 0, last, first)
    return found.center.gather(2, known[..., None].expand(-1, -1, -1, 2)) - drop[:, :, None]


def symbol(found: Detections) -> Float[Tensor, "b f"]:
    """Evidence in [0, 1] for the prohibited cross in each frame: how full the best-placed plus sign is of magenta.

    Frames that had to be brightened count less, for brightening drives purple towards magenta.
    """
    reach = int(tables.CROSS_HALF_LENGTH)
    long, wide = 2 * reach + 1, 2 * round(tables.CROSS_HALF_WIDTH)
    rows, columns = found.magenta.shape[-2:]
    any_there = found.magenta.amax(dim=(-1, -2)) > 0  # there is none in most frames
    magenta = found.magenta[any_there]
    # Both bars less the square that they share; matrix products are far faster than a convolution of one channel.
    lying = _band(rows, -1, 0) @ magenta @ (_band(columns, -reach, reach) - _band(columns, -1, 0)).T
    standing = _band(rows, -reach, reach) @ magenta @ _band(columns, -1, 0).T
    full = (lying + standing) / (2 * long * wide - wide**2)
    evidence = torch.zeros_like(found.gain)
    evidence[any_there] = full.amax(dim=(-1, -2)).clamp(0, 1)
    return evidence * found.gain.clamp(0, 1).square()


def _band(size: int, low: int, high: int) -> Float[Tensor, "n n"]:
    """The matrix that sums a signal over offsets `low` to `high` of each place."""
    offset = torch.arange(size) - torch.arange(size)[:, None]
    return ((offset >= low) & (offset <= high)).float()
