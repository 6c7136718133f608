"""Finding one sprite a frame by template: part of `explain`, the held-out measures' eyes.

A template of colour c over background B removes the squared error 2 <p - B, T (c - B)> - |T (c - B)|^2 from pixels p, T
its coverage; the best is searched at half resolution over the whole frame, then to a quarter pixel near there.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from reelign.playground.world import render, tables

HALF = 10
"""Half the side of a template's patch, pixels."""
FINE = 4
"""Subpixel positions a pixel is searched at, along each axis."""
REACH = 2
"""Pixels around the coarse position that the fine search covers, along each axis."""
PRESENT = 0.25
"""Share of a template's largest possible gain that a sprite must reach to be there."""
LEAST_VISIBLE = 0.3
"""Share of a sprite that the prohibited symbol must leave visible for its gain to be compared with that share alone."""
HIDDEN = 0.5
"""What a template pays for lying on another sprite, as a share of what it pays for lying on background."""
SQUARE_HANDICAP = (0.96, 0.985)
"""By size, measured on clips through the codec: small discs look at most as much like squares as like discs, small
squares at least 8 % more; large discs look at least 9 % less like squares, large squares 13 % more."""
SHAPES = len(tables.SHAPES)
TEMPLATES = SHAPES * len(tables.RADII)
"""Template index = size * SHAPES + shape, sizes in the order of `tables.RADII`."""
RADII = torch.tensor(list(tables.RADII.values()))
_SHAPE, _RADIUS = torch.arange(SHAPES).repeat(len(RADII)), RADII.repeat_interleave(SHAPES)


@lru_cache(maxsize=1)
def handicap() -> Float[Tensor, " k"]:
    """Factors on `Pick.fit` under which blurred shapes are told apart without bias: a blurred disc fills corners."""
    factor = torch.ones(len(tables.RADII), SHAPES)
    factor[:, tables.SHAPES.index("square")] = torch.tensor(SQUARE_HANDICAP)
    return factor.flatten()


@lru_cache(maxsize=1)
def templates() -> Float[Tensor, "k u v h w"]:
    """Every template with its centre at each of FINE x FINE subpixel places [y, x], on patches of 2 HALF + 1 pixels."""
    grid = torch.arange(2 * HALF + 1) - HALF + 0.5
    place = torch.arange(FINE) / FINE
    dx = (grid - place[:, None])[None, None, :, None, :]
    dy = (grid - place[:, None])[None, :, None, :, None]
    full = (TEMPLATES, FINE, FINE)
    size = (*full, len(grid), len(grid))
    shape, radius = (values[:, None, None].expand(full) for values in (_SHAPE, _RADIUS))
    return render.coverage(shape, radius, dx.expand(size), dy.expand(size))


@lru_cache(maxsize=1)
def _coarse() -> Float[Tensor, "k h w"]:
    """The templates centred on a corner of four pixels, at half resolution."""
    grid = torch.arange(-HALF, HALF) + 0.5
    size = (TEMPLATES, len(grid), len(grid))
    full = render.coverage(_SHAPE, _RADIUS, grid[None, None, :].expand(size), grid[None, :, None].expand(size))
    return F.avg_pool2d(full[:, None], 2)[:, 0]


def _patches(maps: Float[Tensor, "n H W"], x: Int[Tensor, " n"], y: Int[Tensor, " n"]) -> Float[Tensor, "n r h w"]:
    """Patches of 2 HALF + 1 pixels around each of the (2 REACH + 1)^2 pixels near (x, y); zero outside the frame."""
    margin = HALF + REACH
    padded = F.pad(maps, (margin, margin + 1, margin, margin + 1))
    side = torch.arange(2 * margin + 1)
    rows = (y[:, None] + side)[:, :, None].expand(-1, -1, len(side))
    columns = (x[:, None] + side)[:, None, :].expand(-1, len(side), -1)
    window = padded[torch.arange(len(maps))[:, None, None], rows, columns]
    return window.unfold(1, 2 * HALF + 1, 1).unfold(2, 2 * HALF + 1, 1).flatten(1, 2)


@dataclass(frozen=True, slots=True)
class Pick:
    """One sprite a frame [n]: colour, whether it is there, each template's best place, and what it removes (pixels)."""

    color: Int[Tensor, " n"]
    present: Bool[Tensor, " n"]
    places: Float[Tensor, "n k 2"]
    fit: Float[Tensor, "n k"]


def _paid(free: Float[Tensor, "n H W"], clear: Float[Tensor, "n H W"]) -> Float[Tensor, "n H W"]:
    """What covering a pixel costs: nothing under the prohibited symbol, something under another sprite."""
    return clear * (HIDDEN + (1 - HIDDEN) * free)


def place(apart: Tensor, free: Tensor, clear: Tensor, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colour [n] and pixel (x, y) of the template that removes the most squared error, at half resolution.

    `apart` [n 3 H W] is the frame less the background, `free` [n H W] the pixels not yet explained,
    `clear` [n H W] those that the prohibited symbol leaves visible, and `flat` [n 3] the background without stripes.
    """
    toward = render.COLOR_TABLE - flat[:, None]
    far = toward.square().sum(dim=-1)
    half = F.avg_pool2d((apart * free[:, None]), 2)
    along = torch.einsum("nkyx,nck->ncyx", half, toward)
    kernels = _coarse()
    bank, margin = kernels[:, None], HALF // 2
    removed = F.conv2d(along.flatten(0, 1)[:, None], bank, padding=margin).unflatten(0, along.shape[:2])
    costs = F.pad(F.avg_pool2d(_paid(free, clear)[:, None], 2), (margin,) * 4, value=1.0)  # nothing hides outside
    paid = F.conv2d(costs, bank.square())
    score = 2 * removed - far[:, :, None, None, None] * paid[:, None]
    side = score.shape[-1]
    best = score.flatten(1).argmax(dim=1)
    spot = best % (side * side)
    return best // (side * side * TEMPLATES), 2 * (spot % side), 2 * (spot // side)


def fit_sprite(apart: Tensor, empty: Tensor, free: Tensor, clear: Tensor, color: Tensor, x: Tensor, y: Tensor) -> Pick:
    """Find each frame's template and place of colour `color`, to a quarter pixel, near pixel (x, y).

    `free` [n H W] is the pixels not yet explained, `clear` those that the prohibited symbol leaves visible.
    """
    toward = render.COLOR_TABLE[color][:, :, None, None] - empty
    along = _patches((apart * toward).sum(dim=1) * free, x, y).flatten(2)
    length = toward.square().sum(dim=1)
    distance = length.mean(dim=(1, 2)).clamp_min(1e-3)
    far = _patches(length * _paid(free, clear), x, y).flatten(2)
    bank = templates().flatten(3).flatten(0, 2)
    score = 2 * along @ bank.T - far @ bank.square().T
    score = score.unflatten(2, (TEMPLATES, FINE**2)).movedim(2, 1).flatten(2)
    by_template, spot = score.max(dim=2)
    step, place = spot // FINE**2, spot % FINE**2
    side = 2 * REACH + 1
    column = x[:, None] + step % side - REACH + (place % FINE) / FINE
    row = y[:, None] + step // side - REACH + (place // FINE) / FINE
    kind = by_template.argmax(dim=1)
    rows = torch.arange(len(color))
    step, place = step[rows, kind], place[rows, kind]
    visible = _patches(length * clear, x, y).flatten(2)[rows, step]
    whole = bank.square().unflatten(0, (TEMPLATES, FINE**2))[kind, place]
    possible = (visible * whole).sum(dim=1)
    present = by_template[rows, kind] > PRESENT * possible.clamp_min(LEAST_VISIBLE * whole.sum(dim=1) * distance)
    fit = by_template / distance[:, None]
    return Pick(color, present, torch.stack([column, row], dim=-1), fit)


def covered(pick: Pick) -> Float[Tensor, "n H W"]:
    """The pixels that a sprite explains, its outline included."""
    kind = pick.fit.argmax(dim=1)
    radius = RADII[kind // SHAPES]
    y, x = (torch.arange(n) + 0.5 for n in (tables.HEIGHT, tables.WIDTH))
    position = pick.places[torch.arange(len(kind)), kind]
    dx = (x - position[:, 0, None, None]).expand(-1, len(y), -1)
    dy = (y[:, None] - position[:, 1, None, None]).expand(-1, -1, len(x))
    mask = render.coverage(kind % SHAPES, radius, dx, dy) > 0
    return (mask & pick.present[:, None, None]).float()
