"""Where a sprite may be: its places in a frame, and every path that a motion allows through them."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reelign.playground.world import motion, render, tables
from reelign.playground.world.wanted import MOTIONS

STEPS = 2
"""Places a pixel that a sprite is looked for at, along each axis."""
STRAY = 1.0
"""Pixels that a sprite may be off its path in a frame; the held-out measures forgive about as much."""
STRAY_COST = 0.005
"""Share of its area that a sprite must win for each pixel it strays, so that without evidence it keeps to its path."""
HITS = np.arange(1.5, tables.FRAMES - 3.4, 0.5)
"""Frames at which a wall may be met."""
DROPS = np.arange(0.0, motion.HIGHEST_DROP + 1.01, 0.5)
"""Pixels between the top of the frame and a sprite that begins to fall: one more than `motion.path` allows."""
RADII = tuple(tables.RADII.values())


def followed(scores: Float[Tensor, "n f p"], paths: Int[Tensor, "k f"]) -> Int[Tensor, "n f"]:
    """Each sprite's places frame by frame: on the path with the highest mean score, or a little off it."""
    frame = torch.arange(scores.shape[1])
    best = paths[scores[:, frame, paths].mean(dim=-1).argmax(dim=1)]
    near, cost = _around(scores.shape[2])
    spots = near[best]
    chosen = (scores.gather(2, spots) - cost[best]).argmax(dim=2, keepdim=True)
    return spots.gather(2, chosen)[..., 0]


def _side(radius: float) -> int:
    """Places along an axis for a sprite that stays inside the frame."""
    return int(STEPS * (tables.WIDTH - 2 * radius)) + 1


@lru_cache(maxsize=len(RADII))
def _around(places: int) -> tuple[Int[Tensor, "p o"], Float[Tensor, "p o"]]:
    """The places within `STRAY` of each place, those outside the frame moved to its edge, and what straying costs."""
    side = round(places**0.5)
    reach = int(STRAY * STEPS)
    step = torch.arange(-reach, reach + 1)
    dy, dx = (offset.flatten() for offset in torch.meshgrid(step, step, indexing="ij"))
    disc = (dx.square() + dy.square() <= reach**2).nonzero()[:, 0]
    y, x = torch.arange(places)[:, None] // side, torch.arange(places)[:, None] % side
    near = (y + dy[disc]).clamp(0, side - 1) * side + (x + dx[disc]).clamp(0, side - 1)
    strayed = torch.hypot(dx[disc].float(), dy[disc].float()) / STEPS
    return near, (STRAY_COST * strayed).expand(near.shape)


@lru_cache(maxsize=len(tables.SHAPES) * len(RADII))
def stamps(shape: int, size: int) -> Float[Tensor, "p n"]:
    """A sprite's coverage of the frame's pixels at each of its places, rows of places from the top left."""
    radius, side = RADII[size], _side(RADII[size])
    place = radius + torch.arange(side) / STEPS
    x, y = torch.arange(tables.WIDTH) + 0.5, torch.arange(tables.HEIGHT) + 0.5
    dx = (x - place[:, None])[None, :, None, :].expand(side, side, 1, -1)
    dy = (y - place[:, None])[:, None, :, None].expand(side, side, -1, 1)
    kind, half = torch.full((side, side), shape), torch.full((side, side), radius)
    return render.coverage(kind, half, dx, dy).reshape(side * side, -1)


@lru_cache(maxsize=len(MOTIONS) * len(RADII))
def paths(program: int, size: int) -> Int[Tensor, "k f"]:
    """Every path that a motion of `wanted.MOTIONS` allows inside the frame, as places of `stamps`."""
    told, radius = MOTIONS[program], RADII[size]
    side = _side(radius)
    free = np.arange(side)
    time = np.arange(tables.FRAMES, dtype=np.float64)
    if told.kind == "wall":
        away = STEPS * tables.WALL_SPEED * np.abs(time - HITS[:, None])
        x = away if told.direction == "left" else side - 1 - away
        x, y = x[:, None], free[None, :, None]
    elif told.kind == "fall":
        drops = np.stack([motion.fall(radius + drop, radius) for drop in DROPS])
        x, y = free[None, :, None], STEPS * (drops - radius)[:, None]
    else:
        moved = STEPS * motion.displacement(told)
        x, y = free[None, :, None] + moved[:, 0], free[:, None, None] + moved[:, 1]
    x, y = (np.rint(axis).astype(np.int64) for axis in np.broadcast_arrays(x, y))
    inside = ((x >= 0) & (x < side) & (y >= 0) & (y < side)).all(axis=-1)
    return torch.from_numpy((y * side + x)[inside])


@lru_cache(maxsize=len(MOTIONS) * len(tables.SHAPES) * len(RADII))
def anywhere(shape: int, size: int, program: int) -> Float[Tensor, "f n"]:
    """Mean coverage over all paths of a motion: what is expected of a sprite that could be on any of them."""
    allowed = paths(program, size)
    drawn = stamps(shape, size)
    visits = torch.zeros(allowed.shape[1], len(drawn))
    visits.scatter_add_(1, allowed.T, torch.full(allowed.T.shape, 1 / len(allowed)))
    return visits @ drawn
