"""The held-out measures' eyes: analysis by synthesis.

A clip is explained by the drawing that, rendered, comes nearest to it: background, stripes, prohibited symbol, and up to
three coloured templates a frame, found one after the other by how much squared error each would remove. Nothing here
segments by palette or takes moments: the rewards do (`detect`), so that a policy cannot please both by one trick.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from reelign.batches import Videos
from reelign.playground import render, tables
from reelign.playground.memo import remembered
from reelign.playground.wanted import pixels

SLOTS = 3
"""Colours followed in a clip: a scene has at most two, the third is one too many."""
HALF = 8
"""Half the side of a template's patch, pixels."""
FINE = 4
"""Subpixel positions a pixel is searched at, along each axis."""
REACH = 1
"""Pixels around the coarse position that the fine search covers, along each axis."""
PRESENT = 0.45
"""Share of a template's largest possible gain that a sprite must reach to be there."""
CROSS_FRAMES = 3
"""Frames that must show the prohibited symbol for a clip to hold it."""
GAINS = torch.arange(0.25, 1.46, 0.1)
PHASES = 32
SHAPES = len(tables.SHAPES)
TEMPLATES = SHAPES * len(tables.RADII)
"""Template index = size * SHAPES + shape, sizes in the order of `tables.RADII`."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The best drawing of each clip, by clip, colour slot (strongest first) and frame.

    `position` is in pixels and means nothing where a sprite is not `present`; `fit` says how much squared error each
    template removes, over the squared distance between sprite and background, so in pixels. `background` and
    `camera` index the tables; `phase` is that of the stripes in pixels; `gain` the brightness of each frame.
    `crossed` is the frames with the prohibited symbol, `cross` where it is; `doubled` the frames that show a second
    sprite of one colour.
    """

    color: Int[Tensor, "b s"]
    present: Bool[Tensor, "b s f"]
    position: Float[Tensor, "b s f 2"]
    fit: Float[Tensor, "b s f k"]
    background: Int[Tensor, " b"]
    striped: Bool[Tensor, " b"]
    camera: Int[Tensor, " b"]
    phase: Float[Tensor, "b f"]
    gain: Float[Tensor, "b f"]
    crossed: Bool[Tensor, "b f"]
    cross: Float[Tensor, "b 2"]
    doubled: Bool[Tensor, "b f"]

    @property
    def template(self) -> Int[Tensor, "b s"]:
        """The template that explains each slot best over its whole life."""
        return (self.fit * self.present[..., None]).sum(dim=2).argmax(dim=-1)


@lru_cache(maxsize=1)
def templates() -> Float[Tensor, "k u v h w"]:
    """Every template with its centre at each of FINE x FINE subpixel places [y, x], on patches of 2 HALF + 1 pixels."""
    grid = torch.arange(2 * HALF + 1) - HALF + 0.5
    place = torch.arange(FINE) / FINE
    dx = (grid - place[:, None])[None, None, :, None, :]
    dy = (grid - place[:, None])[None, :, None, :, None]
    shape = torch.arange(SHAPES).repeat(len(tables.RADII))
    radius = torch.tensor(list(tables.RADII.values())).repeat_interleave(SHAPES)
    full = (TEMPLATES, FINE, FINE)
    size = (*full, len(grid), len(grid))
    return render.coverage(
        shape[:, None, None].expand(full), radius[:, None, None].expand(full), dx.expand(size), dy.expand(size)
    )


@lru_cache(maxsize=1)
def _coarse() -> Float[Tensor, "k h w"]:
    """The templates centred on a corner of four pixels, at half resolution."""
    grid = torch.arange(-HALF, HALF) + 0.5
    shape = torch.arange(SHAPES).repeat(len(tables.RADII))
    radius = torch.tensor(list(tables.RADII.values())).repeat_interleave(SHAPES)
    size = (TEMPLATES, len(grid), len(grid))
    full = render.coverage(shape, radius, grid[None, None, :].expand(size), grid[None, :, None].expand(size))
    return F.avg_pool2d(full[:, None], 2)[:, 0]


def _backgrounds(frames: Float[Tensor, "b f 3 H W"]) -> tuple[Tensor, Tensor]:
    """The background [b] and the brightness [b f] that leave the least truncated error, on every second pixel."""
    sparse = frames[..., ::2, 1::2].flatten(3)
    means = render.BACKGROUND_TABLE
    bright = GAINS[:, None, None] * means
    apart = sparse.square().sum(dim=2)[:, :, None, None]
    cross = torch.einsum("bfcp,gnc->bfgnp", sparse, bright)
    distance = apart - 2 * cross + bright.square().sum(dim=-1)[:, :, None]
    cost = distance.clamp_max(0.06).mean(dim=-1)
    # Gains blur hues, so the hue is settled at the brightness that each hypothesis likes best over the whole clip.
    background = cost.amin(dim=2).sum(dim=1).argmin(dim=-1)
    rows = torch.arange(len(frames))
    best = cost[rows, :, :, background].argmin(dim=-1)
    near = distance[rows, :, :, background].gather(2, best[..., None, None].expand(-1, -1, 1, sparse.shape[-1]))[:, :, 0]
    inside = (near < 0.06).float()
    flat = means[background]
    along = (torch.einsum("bfcp,bc->bfp", sparse, flat) * inside).sum(dim=-1)
    return background, along / (inside.sum(dim=-1) * flat.square().sum(dim=1)[:, None]).clamp_min(1e-3)


def _stripes(apart: Float[Tensor, "b f 3 H W"]) -> tuple[Tensor, Tensor, Tensor]:
    """Whether there are stripes [b], the camera [b] that moves them best, and their phase [b f] in pixels."""
    inside = (apart.square().sum(dim=2) < 0.09).float()
    seen, count = (inside * apart.mean(dim=2)).sum(dim=2), inside.sum(dim=2)
    x = torch.arange(tables.WIDTH) + 0.5
    start = torch.arange(PHASES) * (tables.TEXTURE_PERIOD / PHASES)
    speeds = torch.tensor(list(tables.CAMERAS.values()))
    phase = start[None, :, None] + speeds[:, None, None] * torch.arange(apart.shape[1])
    wave = torch.cos(2 * torch.pi * (x - phase[..., None]) / tables.TEXTURE_PERIOD) * tables.TEXTURE_AMPLITUDE
    removed = 2 * torch.einsum("bfx,vpfx->bvp", seen, wave) - torch.einsum("bfx,vpfx->bvp", count, wave.square())
    best = removed.flatten(1).max(dim=1)
    camera, start_index = best.indices // PHASES, best.indices % PHASES
    striped = best.values > 0
    still = list(tables.CAMERAS).index("still")
    return striped, torch.where(striped, camera, still), phase[camera, start_index]


def _cross(frames: Float[Tensor, "b f 3 H W"]) -> tuple[Tensor, Tensor]:
    """Frames [b f] in which a plus sign of pixels near magenta stands out, and its place [b 2], on half pixels."""
    reach = int(tables.CROSS_HALF_LENGTH + 1)
    places = torch.arange(2) / 2
    grid = torch.arange(2 * reach + 1) - reach
    dx = (grid - places[:, None]).abs()[None, :, None, :]
    dy = (grid - places[:, None]).abs()[:, None, :, None]
    long, wide = tables.CROSS_HALF_LENGTH, tables.CROSS_HALF_WIDTH
    outline = torch.minimum(torch.maximum(dx - long, dy - wide), torch.maximum(dx - wide, dy - long))
    plus = (0.5 - outline).clamp(0, 1).flatten(0, 1)
    magenta = torch.tensor(tables.CROSS_COLOR)[:, None, None]
    alike = 1 - ((frames - magenta).square().sum(dim=2) / 0.5).clamp_max(1)
    score = F.conv2d(alike.flatten(0, 1)[:, None], (plus / plus.sum(dim=(1, 2), keepdim=True))[:, None], padding=reach)
    score = score.reshape(*frames.shape[:2], 4, -1)
    width = frames.shape[-1]
    crossed = score.amax(dim=(2, 3)) > 0.5
    weight = crossed.float() + 1e-3
    where = (score * weight[:, :, None, None]).sum(dim=1).flatten(1).argmax(dim=1)
    quarter, pixel = where // score.shape[-1], where % score.shape[-1]
    x = pixel % width + 0.5 + (quarter % 2) / 2
    y = pixel // width + 0.5 + (quarter // 2) / 2
    return crossed, torch.stack([x, y], dim=-1)


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
class _Pick:
    """One sprite a frame [n]: colour, whether it is there, its place, and what each template removes (pixels)."""

    color: Int[Tensor, " n"]
    present: Bool[Tensor, " n"]
    position: Float[Tensor, "n 2"]
    fit: Float[Tensor, "n k"]


def _place(apart: Tensor, empty: Tensor, free: Tensor, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colour [n] and pixel (x, y) of the template that removes the most squared error, at half resolution.

    `apart` [n 3 H W] is the frame less the background `empty`, `free` [n H W] the pixels not yet explained, and
    `flat` [n 3] the background without stripes.
    """
    toward = render.COLOR_TABLE - flat[:, None]
    far = toward.square().sum(dim=-1)
    half = F.avg_pool2d((apart * free[:, None]), 2)
    along = torch.einsum("nkyx,nck->ncyx", half, toward)
    kernels = _coarse()
    bank = kernels[:, None]
    removed = F.conv2d(along.flatten(0, 1)[:, None], bank, padding=HALF // 2).unflatten(0, along.shape[:2])
    covered = F.conv2d(F.avg_pool2d(free[:, None], 2), bank.square(), padding=HALF // 2)
    score = 2 * removed - far[:, :, None, None, None] * covered[:, None]
    side = score.shape[-1]
    best = score.flatten(1).argmax(dim=1)
    spot = best % (side * side)
    return best // (side * side * TEMPLATES), 2 * (spot % side), 2 * (spot // side)


def _fit(apart: Tensor, empty: Tensor, free: Tensor, color: Tensor, x: Tensor, y: Tensor) -> _Pick:
    """Find each frame's template and place of colour `color`, to a quarter pixel, near pixel (x, y)."""
    toward = render.COLOR_TABLE[color][:, :, None, None] - empty
    along = _patches((apart * toward).sum(dim=1) * free, x, y).flatten(2)
    far = _patches(toward.square().sum(dim=1) * free, x, y).flatten(2)
    bank = templates().flatten(3).flatten(0, 2)
    score = 2 * along @ bank.T - far @ bank.square().T
    score = score.unflatten(2, (TEMPLATES, FINE, FINE))
    by_template = score.amax(dim=(1, 3, 4))
    distance = toward.square().sum(dim=1).mean(dim=(1, 2)).clamp_min(1e-3)
    kind = by_template.argmax(dim=1)
    rows = torch.arange(len(color))
    spot = score[rows, :, kind].flatten(1).argmax(dim=1)
    step, place = spot // FINE**2, spot % FINE**2
    side = 2 * REACH + 1
    column = x + step % side - REACH + (place % FINE) / FINE
    row = y + step // side - REACH + (place // FINE) / FINE
    fit = by_template / distance[:, None]
    size = templates()[:, 0, 0].square().sum(dim=(1, 2))
    present = fit[rows, kind] > PRESENT * size[kind]
    return _Pick(color, present, torch.stack([column, row], dim=1), fit)


def _covered(pick: _Pick) -> Float[Tensor, "n H W"]:
    """The pixels that a sprite explains, its outline and one pixel around it included."""
    kind = pick.fit.argmax(dim=1)
    radius = torch.tensor(list(tables.RADII.values()))[kind // SHAPES] + 1.0
    y, x = (torch.arange(n) + 0.5 for n in (tables.HEIGHT, tables.WIDTH))
    dx = (x - pick.position[:, 0, None, None]).expand(-1, len(y), -1)
    dy = (y[:, None] - pick.position[:, 1, None, None]).expand(-1, -1, len(x))
    mask = render.coverage(kind % SHAPES, radius, dx, dy) > 0
    return (mask & pick.present[:, None, None]).float()


def _follow(picks: list[_Pick], shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Turn each frame's picks into colour slots that last a clip: color, present, position, fit, doubled."""
    color = torch.stack([p.color.reshape(shape) for p in picks], dim=2)
    present = torch.stack([p.present.reshape(shape) for p in picks], dim=2)
    fit = torch.stack([p.fit.reshape(*shape, -1) for p in picks], dim=2)
    position = torch.stack([p.position.reshape(*shape, 2) for p in picks], dim=2)
    weight = fit.amax(dim=-1) * present
    votes = torch.zeros(shape[0], len(tables.COLORS)).scatter_add(1, color.flatten(1), weight.flatten(1))
    slots = votes.topk(SLOTS, dim=1).indices
    matches = (color[:, None] == slots[:, :, None, None]) & present[:, None]
    chosen = matches.float().argmax(dim=-1)
    batch = torch.arange(shape[0])[:, None, None]
    time = torch.arange(shape[1])[None, None]
    doubled = (matches.sum(dim=-1) > 1).any(dim=1)
    return slots, matches.any(dim=-1), position[batch, time, chosen], fit[batch, time, chosen], doubled


@remembered
def explain(videos: Videos) -> Explanation:
    """Explain playground clips; a clip's explanation does not depend on its neighbours."""
    frames = pixels(videos)
    b, f = frames.shape[:2]
    background, gain = _backgrounds(frames)
    even = frames / gain.clamp(0.2, 2.0)[:, :, None, None, None]
    flat = render.BACKGROUND_TABLE[background]
    striped, camera, phase = _stripes(even - flat[:, None, :, None, None])
    crossed, cross = _cross(even)
    blank = _drawing(background, striped, phase)
    empty = render.background(blank).flatten(0, 1)
    apart = even.flatten(0, 1) - empty
    symbol = (F.max_pool2d(render.cross_coverage(cross)[:, None], 3, stride=1, padding=1)[:, 0] > 0.01).float()
    free = (1 - symbol[:, None] * crossed[:, :, None, None]).flatten(0, 1)
    picks = []
    for _ in range(SLOTS):
        pick = _fit(apart, empty, free, *_place(apart, empty, free, flat.repeat_interleave(f, dim=0)))
        free = free * (1 - _covered(pick))
        picks.append(pick)
    slots, present, position, fit, doubled = _follow(picks, (b, f))
    found = Explanation(
        color=slots,
        present=present,
        position=position,
        fit=fit,
        background=background,
        striped=striped,
        camera=camera,
        phase=phase,
        gain=gain,
        crossed=crossed,
        cross=cross,
        doubled=doubled,
    )
    drawn = rerender(found, torch.ones_like(gain)).flatten(2)
    seen = frames.flatten(2)
    gain = (seen * drawn).sum(dim=2) / drawn.square().sum(dim=2)
    return replace(found, gain=gain)


def _drawing(background: Tensor, striped: Tensor, phase: Tensor) -> render.Drawing:
    """An empty scene."""
    b, f = phase.shape
    return render.Drawing(
        position=torch.zeros(b, 2, f, 2),
        shape=torch.zeros(b, 2, f, dtype=torch.int64),
        color=torch.zeros(b, 2, f, 3),
        radius=torch.zeros(b, 2, f),
        background=render.BACKGROUND_TABLE[background],
        stripes=phase,
        panned=striped,
        cross=torch.zeros(b, 2),
        has_cross=torch.zeros(b, dtype=torch.bool),
        gain=torch.ones(b, f),
    )


def rerender(found: Explanation, gain: Float[Tensor, "b f"] | None = None) -> Float[Tensor, "b f 3 H W"]:
    """Draw explanations: the two strongest sprites, each frame's own template, at the found (or given) brightness."""
    drawing = _drawing(found.background, found.striped, found.phase)
    kind = found.fit[:, :2].argmax(dim=-1)
    drawing.position = found.position[:, :2]
    drawing.shape = kind % SHAPES
    drawing.radius = torch.tensor(list(tables.RADII.values()))[kind // SHAPES] * found.present[:, :2]
    drawing.color = render.COLOR_TABLE[found.color[:, :2]][:, :, None].expand(-1, -1, kind.shape[2], -1)
    drawing.cross, drawing.has_cross = found.cross, found.crossed.sum(dim=1) >= CROSS_FRAMES
    drawing.gain = found.gain if gain is None else gain
    return render.draw(drawing)
