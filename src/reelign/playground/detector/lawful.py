"""The rewards' mechanics: how far a detected path is from a prompted motion, and from any lawful one."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reelign.playground.world import motion, tables
from reelign.playground.world.wanted import MOTIONS

HITS = np.arange(1.5, tables.FRAMES - 3.4, 0.25)
"""Frames at which a wall may be met: half a frame around the whole ones that `motion.path` draws."""
STARTS = np.arange(0.0, motion.HIGHEST_DROP + 1.01, 0.5)
"""Pixels between the top of the frame and a sprite that begins to fall: one more than `motion.path` allows."""
DROPS = np.arange(
    tables.HEIGHT - 2 * max(tables.RADII.values()) - motion.HIGHEST_DROP - 2,
    tables.HEIGHT - 2 * min(tables.RADII.values()) + 2,
    0.25,
)
"""Heights in pixels that a sprite of any size may fall, a little more and a little less."""
SMEAR = 5.0
"""Pixels a frame above the fastest prompted speed that halve the weight of an error in place."""
_TIME = np.arange(tables.FRAMES, dtype=np.float64)


def trust(path: Float[Tensor, "*n f 2"]) -> Float[Tensor, "*n f"]:
    """How exactly a sprite on this path can be seen in each frame, in [0, 1]: long falls outrun codecs and smear."""
    speed = torch.gradient(path, dim=-2)[0].norm(dim=-1)
    return 1 / (1 + (speed - max(tables.SPEEDS.values())).clamp_min(0) / SMEAR)


@dataclass(frozen=True, slots=True)
class _Programs:
    """The paths of every prompt's motion.

    Along a fixed axis a path is absolute (walls and the floor stand somewhere); along others only its shape counts.
    """

    paths: Float[Tensor, "k f 2"]
    owners: Int[Tensor, " k"]
    """Motion ids."""
    sizes: Int[Tensor, " k"]
    """Size ids; -1 is any."""
    fixed: Bool[Tensor, "k 2"]
    weight: Float[Tensor, "k f"]
    """Of a frame's squared error: its squared trust."""
    extent: Float[Tensor, " k"]
    """How far a path strays from its mean, pixels (rms)."""


@lru_cache(maxsize=1)
def _programs() -> _Programs:
    rows: list[tuple[np.ndarray, int, int, tuple[bool, bool]]] = []
    for index, program in enumerate(MOTIONS):
        for size, radius in enumerate(tables.RADII.values()):
            if program.kind == "wall":
                away = np.abs(_TIME - HITS[:, None]) * tables.WALL_SPEED
                x = radius + away if program.direction == "left" else tables.WIDTH - radius - away
                rows += [(np.stack([path, 0 * path], axis=1), index, size, (True, False)) for path in x]
            elif program.kind == "fall":
                falls = [motion.fall(start, radius) for start in radius + STARTS]
                rows += [(np.stack([0 * path, path], axis=1), index, size, (False, True)) for path in falls]
            elif size == 0:
                rows.append((motion.displacement(program), index, -1, (False, False)))
    paths, owners, radii, fixed = zip(*rows, strict=True)
    every = torch.from_numpy(np.stack(paths)).float()
    extent = every.var(dim=1, correction=0).sum(dim=-1).sqrt()
    weight = trust(every).square()
    return _Programs(every, torch.tensor(owners), torch.tensor(radii), torch.tensor(fixed), weight, extent)


def prompted_error(
    path: Float[Tensor, "n f 2"], wanted: Int[Tensor, " n"], size: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Distance to the nearest path that motion id `wanted` of `wanted.MOTIONS` allows, and how far that path strays.

    Both are root-mean-square pixels; the second is around the path's mean, and at least what the slowest move strays.
    """
    known = _programs()
    error = path[:, None] - known.paths
    error = error - error.mean(dim=2, keepdim=True) * ~known.fixed[None, :, None]
    distance = (error.square().sum(dim=-1) * known.weight).mean(dim=-1)
    allowed = (known.owners == wanted[:, None]) & ((known.sizes < 0) | (known.sizes == size[:, None]))
    best = distance.masked_fill(~allowed, torch.inf).min(dim=1)
    return best.values.sqrt(), known.extent[best.indices].clamp_min(min(tables.SPEEDS.values()) * float(_TIME.std()))


def _unexplained(*columns: np.ndarray) -> np.ndarray:
    """The projection [f f] that removes a constant and the given columns from a signal."""
    basis = np.stack([np.ones_like(_TIME), *columns], axis=1)
    return np.eye(len(_TIME)) - basis @ np.linalg.pinv(basis)


@lru_cache(maxsize=1)
def _laws() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Projections that remove a constant, a line, a line bent in the middle [f f], and bounces [h f f]; falls [d f]."""
    middle = (tables.FRAMES - 1) / 2
    constant, line = _unexplained(), _unexplained(_TIME)
    bent = _unexplained(_TIME, np.maximum(_TIME - middle, 0))
    bounces = np.stack([_unexplained(np.abs(_TIME - hit)) for hit in HITS])
    falls = np.stack([motion.fall(motion.FLOOR - drop, 0.0) for drop in DROPS])
    tensors = [torch.from_numpy(a).float() for a in (constant, line, bent, bounces, falls)]
    return tensors[0], tensors[1], tensors[2], tensors[3], tensors[4]


def lawful_error(path: Float[Tensor, "n f 2"]) -> Float[Tensor, " n"]:
    """Root-mean-square distance in pixels to the nearest lawful path, of whatever direction and speed.

    Lawful is: one or two straight strokes that meet in the middle frame, an elastic bounce along x, or a fall with
    bounces off a floor. Standing still is a stroke of speed 0.
    """
    constant, line, bent, bounces, falls = _laws()
    x, y = path.unbind(-1)
    straight_x, straight_y = (x @ line)[:, None], (y @ line)[:, None]
    bounced = torch.einsum("nf,hfg->nhg", x, bounces)
    smeared = trust(torch.stack([torch.zeros_like(falls), falls], dim=-1))
    fallen = (y[:, None] - falls) @ constant * smeared
    errors_x = torch.cat([straight_x, (x @ bent)[:, None], bounced, straight_x.expand_as(fallen)], dim=1)
    errors_y = torch.cat([straight_y, (y @ bent)[:, None], straight_y.expand_as(bounced), fallen], dim=1)
    return (errors_x.square() + errors_y.square()).mean(dim=-1).amin(dim=1).sqrt()
