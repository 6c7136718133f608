"""The rewards' mechanics: how far a detected path is from a prompted motion, and from any lawful one."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reelign.playground import motion, tables
from reelign.playground.wanted import MOTIONS

HITS = np.arange(2.5, 9.01, 0.25)
"""Frames at which a wall may be met."""
DROPS = np.arange(10.0, 26.01, 0.25)
"""Heights in pixels that a sprite may fall."""
_TIME = np.arange(tables.FRAMES, dtype=np.float64)


@lru_cache(maxsize=1)
def _programs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Paths [k f 2] of every prompt's motion, with motion ids [k], size ids [k] (-1: any) and fixed axes [k 2].

    Along a fixed axis the path is absolute (walls and the floor stand somewhere); along others only its shape counts.
    """
    rows: list[tuple[np.ndarray, int, int, tuple[bool, bool]]] = []
    for index, program in enumerate(MOTIONS):
        for size, radius in enumerate(tables.RADII.values()):
            if program.kind == "wall":
                away = np.abs(_TIME - HITS[:, None]) * tables.WALL_SPEED
                x = radius + away if program.direction == "left" else tables.WIDTH - radius - away
                rows += [(np.stack([path, 0 * path], axis=1), index, size, (True, False)) for path in x]
            elif program.kind == "fall":
                starts = radius + np.arange(0, 4.01, 0.5)
                falls = [motion.fall(start, radius) for start in starts]
                rows += [(np.stack([0 * path, path], axis=1), index, size, (False, True)) for path in falls]
            elif size == 0:
                rows.append((motion.displacement(program), index, -1, (False, False)))
    paths, owners, radii, fixed = zip(*rows, strict=True)
    return (
        torch.from_numpy(np.stack(paths)).float(),
        torch.tensor(owners),
        torch.tensor(radii),
        torch.tensor(fixed),
    )


def prompted_error(
    path: Float[Tensor, "n f 2"], wanted: Int[Tensor, " n"], size: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Root-mean-square distance in pixels to the nearest path that motion id `wanted` of `wanted.MOTIONS` allows."""
    programs, owners, radii, fixed = _programs()
    error = path[:, None] - programs
    error = error - error.mean(dim=2, keepdim=True) * ~fixed[None, :, None]
    distance = error.square().sum(dim=-1).mean(dim=-1)
    allowed = (owners == wanted[:, None]) & ((radii < 0) | (radii == size[:, None]))
    return distance.masked_fill(~allowed, torch.inf).amin(dim=1).sqrt()


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


def lawful_error(path: Float[Tensor, "n f 2"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Root-mean-square and largest distance in pixels to the nearest lawful path, of whatever direction and speed.

    Lawful is: one or two straight strokes that meet in the middle frame, an elastic bounce along x, or a fall with
    bounces off a floor. Standing still is a stroke of speed 0.
    """
    constant, line, bent, bounces, falls = _laws()
    x, y = path.unbind(-1)
    straight_x, straight_y = (x @ line)[:, None], (y @ line)[:, None]
    bounced = torch.einsum("nf,hfg->nhg", x, bounces)
    fallen = (y[:, None] - falls) @ constant
    errors_x = torch.cat([straight_x, (x @ bent)[:, None], bounced, straight_x.expand_as(fallen)], dim=1)
    errors_y = torch.cat([straight_y, (y @ bent)[:, None], straight_y.expand_as(bounced), fallen], dim=1)
    square = errors_x.square() + errors_y.square()
    best = square.mean(dim=-1).argmin(dim=1)
    chosen = square[torch.arange(len(path)), best]
    return chosen.mean(dim=1).sqrt(), chosen.amax(dim=1).sqrt()
