"""The held-out measures' eyes: analysis by synthesis.

A clip is explained by the drawing that, rendered, comes nearest to it: background, stripes, prohibited symbol, and up
to three coloured templates a frame, found one after the other by how much squared error each would remove (`match`).
Nothing here segments by palette or takes moments: the rewards do (`detector`), so that a policy cannot please both by
one trick.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from reelign.batches import Videos
from reelign.playground.judge import match
from reelign.playground.judge.match import SHAPES
from reelign.playground.world import render, tables
from reelign.playground.world.memo import remembered
from reelign.playground.world.wanted import Frames, pixels

SLOTS = 3
"""Colours followed in a clip: a scene has at most two, the third is one too many."""
CROSS_ALIKE = 0.5
"""Mean likeness to magenta at which a plus sign of pixels is the prohibited symbol; purple sprites reach 0.46."""
CROSS_FRAMES = 3
"""Frames that must show the prohibited symbol for it to be drawn again."""
GAINS = torch.arange(0.25, 1.46, 0.1)
PHASES = 32


@dataclass(frozen=True, slots=True)
class Explanation:
    """The best drawing of each clip, by clip, colour slot (strongest first) and frame.

    `places` is where each template fits best, in pixels, of no meaning where a sprite is not `present`; `fit` says how
    much squared error it removes there, over the squared distance between sprite and background, so in pixels.
    `background` and `camera` index the tables; `phase` is that of the stripes in pixels; `gain` the brightness that
    draws each frame best, `brightness` that over the clip's median, or the background's where it changes less, for a
    sprite that cannot be explained is no flicker. `crossed` is the frames with the prohibited symbol, `cross` where it
    is; `doubled` the frames that show a second sprite of one colour.
    """

    color: Int[Tensor, "b s"]
    present: Bool[Tensor, "b s f"]
    places: Float[Tensor, "b s f k 2"]
    fit: Float[Tensor, "b s f k"]
    background: Int[Tensor, " b"]
    striped: Bool[Tensor, " b"]
    camera: Int[Tensor, " b"]
    phase: Float[Tensor, "b f"]
    gain: Float[Tensor, "b f"]
    brightness: Float[Tensor, "b f"]
    crossed: Bool[Tensor, "b f"]
    cross: Float[Tensor, "b 2"]
    doubled: Bool[Tensor, "b f"]

    @property
    def template(self) -> Int[Tensor, "b s"]:
        """The template that explains each slot best over its whole life."""
        return ((self.fit * self.present[..., None]).sum(dim=2) * match.handicap()).argmax(dim=-1)

    @property
    def path(self) -> Float[Tensor, "b s f 2"]:
        """Where each slot's sprite is, taken for its lasting template throughout."""
        index = self.template[:, :, None, None, None].expand(*self.fit.shape[:3], 1, 2)
        return self.places.gather(3, index)[:, :, :, 0]


def _backgrounds(frames: Frames) -> tuple[Tensor, Tensor]:
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
    frame = torch.arange(frames.shape[1])
    near = distance[rows, :, :, background][rows[:, None], frame, best]
    inside = (near < 0.06).float()
    flat = means[background]
    along = (torch.einsum("bfcp,bc->bfp", sparse, flat) * inside).sum(dim=-1)
    return background, along / (inside.sum(dim=-1) * flat.square().sum(dim=1)[:, None]).clamp_min(1e-3)


def _stripes(apart: Frames) -> tuple[Tensor, Tensor, Tensor]:
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


def _cross_score(frames: Frames) -> Float[Tensor, "b f q n"]:
    """How alike to magenta a plus sign's pixels are, in [0, 1], at each of 4 half-pixel places of each pixel."""
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
    return score.reshape(*frames.shape[:2], 4, -1)


def _cross(frames: Frames) -> tuple[Tensor, Tensor]:
    """Frames [b f] in which the prohibited symbol stands out, and its place [b 2] in pixels."""
    score = _cross_score(frames)
    width = frames.shape[-1]
    crossed = score.amax(dim=(2, 3)) > CROSS_ALIKE
    weight = crossed.float() + 1e-3
    where = (score * weight[:, :, None, None]).sum(dim=1).flatten(1).argmax(dim=1)
    quarter, pixel = where // score.shape[-1], where % score.shape[-1]
    x = pixel % width + 0.5 + (quarter % 2) / 2
    y = pixel // width + 0.5 + (quarter // 2) / 2
    return crossed, torch.stack([x, y], dim=-1)


def _follow(picks: list[match.Pick], shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Turn each frame's picks into colour slots that last a clip: color, present, places, fit, doubled."""
    color = torch.stack([p.color.reshape(shape) for p in picks], dim=2)
    present = torch.stack([p.present.reshape(shape) for p in picks], dim=2)
    fit = torch.stack([p.fit.reshape(*shape, -1) for p in picks], dim=2)
    places = torch.stack([p.places.reshape(*shape, -1, 2) for p in picks], dim=2)
    weight = fit.amax(dim=-1) * present
    votes = torch.zeros(shape[0], len(tables.COLORS)).scatter_add(1, color.flatten(1), weight.flatten(1))
    slots = votes.topk(SLOTS, dim=1).indices
    matches = (color[:, None] == slots[:, :, None, None]) & present[:, None]
    chosen = matches.float().argmax(dim=-1)
    batch = torch.arange(shape[0])[:, None, None]
    time = torch.arange(shape[1])[None, None]
    doubled = (matches.sum(dim=-1) > 1).any(dim=1)
    return slots, matches.any(dim=-1), places[batch, time, chosen], fit[batch, time, chosen], doubled


@remembered(chunk=16)
def explain(videos: Videos) -> Explanation:
    """Explain playground clips; a clip's explanation does not depend on its neighbours."""
    frames = pixels(videos)
    b, f = frames.shape[:2]
    background, gain = _backgrounds(frames)
    even = frames / gain.clamp(0.2, 2.0)[:, :, None, None, None]
    flat = render.BACKGROUND_TABLE[background]
    striped, camera, phase = _stripes(even - flat[:, None, :, None, None])
    crossed, cross = _cross(frames)
    blank = _drawing(background, striped, phase)
    empty = render.background(blank).flatten(0, 1)
    apart = even.flatten(0, 1) - empty
    symbol = (F.max_pool2d(render.cross_coverage(cross)[:, None], 3, stride=1, padding=1)[:, 0] > 0.01).float()
    clear = (1 - symbol[:, None] * crossed[:, :, None, None]).flatten(0, 1)
    free, picks = clear, []
    for _ in range(SLOTS):
        coarse = match.place(apart, free, clear, flat.repeat_interleave(f, dim=0))
        pick = match.fit_sprite(apart, empty, free, clear, *coarse)
        free = free * (1 - match.covered(pick))
        picks.append(pick)
    slots, present, places, fit, doubled = _follow(picks, (b, f))
    found = Explanation(
        color=slots,
        present=present,
        places=places,
        fit=fit,
        background=background,
        striped=striped,
        camera=camera,
        phase=phase,
        gain=gain,
        brightness=gain,
        crossed=crossed,
        cross=cross,
        doubled=doubled,
    )
    drawn = rerender(found, torch.ones_like(gain)).flatten(2)
    seen = frames.flatten(2)
    fitted = (seen * drawn).sum(dim=2) / drawn.square().sum(dim=2)
    relative = torch.stack([g / g.median(dim=1, keepdim=True).values.clamp_min(1e-3) for g in (fitted, gain)])
    steadier = (relative - 1).abs().argmin(dim=0, keepdim=True)
    return replace(found, gain=fitted, brightness=relative.gather(0, steadier)[0])


def _drawing(background: Tensor, striped: Tensor, phase: Tensor) -> render.Drawing:
    """An empty scene."""
    return replace(render.blank(render.BACKGROUND_TABLE[background], striped, phase.shape[1]), stripes=phase)


def rerender(found: Explanation, gain: Float[Tensor, "b f"] | None = None) -> Frames:
    """Draw explanations: the two strongest sprites, each frame's own template, at the found (or given) brightness."""
    drawing = _drawing(found.background, found.striped, found.phase)
    kind = found.fit[:, :2].argmax(dim=-1)
    drawing.position = found.places[:, :2].gather(3, kind[..., None, None].expand(-1, -1, -1, 1, 2))[:, :, :, 0]
    drawing.shape = kind % SHAPES
    drawing.radius = match.RADII[kind // SHAPES] * found.present[:, :2]
    drawing.color = render.COLOR_TABLE[found.color[:, :2]][:, :, None].expand(-1, -1, kind.shape[2], -1)
    drawing.cross, drawing.has_cross = found.cross, found.crossed.sum(dim=1) >= CROSS_FRAMES
    drawing.gain = found.gain if gain is None else gain
    return render.draw(drawing)
