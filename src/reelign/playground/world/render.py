"""Drawing scenes: anti-aliased sprites over a flat or striped background, whole batches at once."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reelign.playground.world import tables
from reelign.playground.world.motion import paths
from reelign.playground.world.scene import Scene
from reelign.playground.world.wanted import Frames

COLOR_NAMES, SHAPE_NAMES = tuple(tables.COLORS), tables.SHAPES
BACKGROUND_NAMES = tuple(tables.BACKGROUNDS)
COLOR_TABLE = torch.tensor([tables.COLORS[n] for n in COLOR_NAMES])
BACKGROUND_TABLE = torch.tensor([tables.BACKGROUNDS[n] for n in BACKGROUND_NAMES])


@dataclass(slots=True)
class Drawing:
    """Everything a renderer needs for a batch of clips, frame by frame; defects edit it before it is drawn.

    Two sprite slots a clip; an empty slot has radius 0. `cross` is the centre of the prohibited symbol, `has_cross`
    whether it is there; `gain` brightens or darkens whole frames.
    """

    position: Float[Tensor, "b 2 f 2"]
    shape: Int[Tensor, "b 2 f"]
    color: Float[Tensor, "b 2 f 3"]
    radius: Float[Tensor, "b 2 f"]
    background: Float[Tensor, "b 3"]
    stripes: Float[Tensor, "b f"]
    """Phase of the stripes in pixels."""
    panned: Bool[Tensor, " b"]
    cross: Float[Tensor, "b 2"]
    has_cross: Bool[Tensor, " b"]
    gain: Float[Tensor, "b f"]


def blank(background: Float[Tensor, "b 3"], panned: Bool[Tensor, " b"], frames: int = tables.FRAMES) -> Drawing:
    """Empty scenes, whose stripes, if any, do not move."""
    b, f = len(background), frames
    return Drawing(
        position=torch.zeros(b, 2, f, 2),
        shape=torch.zeros(b, 2, f, dtype=torch.int64),
        color=torch.zeros(b, 2, f, 3),
        radius=torch.zeros(b, 2, f),
        background=background,
        stripes=torch.zeros(b, f),
        panned=panned,
        cross=torch.zeros(b, 2),
        has_cross=torch.zeros(b, dtype=torch.bool),
        gain=torch.ones(b, f),
    )


def layout(scenes: Sequence[Scene], rng: random.Random) -> Drawing:
    """Place a batch of scenes: draws each sprite's start and each texture's phase from `rng`."""
    background = torch.tensor([tables.BACKGROUNDS[s.background] for s in scenes])
    drawing = blank(background, torch.tensor([s.camera != "still" for s in scenes]))
    time = torch.arange(tables.FRAMES)
    for i, scene in enumerate(scenes):
        drawing.position[i, : len(scene.sprites)] = torch.from_numpy(paths(scene, rng))
        drawing.stripes[i] = rng.randrange(int(tables.TEXTURE_PERIOD)) + tables.CAMERAS[scene.camera] * time
        for j, sprite in enumerate(scene.sprites):
            drawing.shape[i, j] = SHAPE_NAMES.index(sprite.shape)
            drawing.color[i, j] = torch.tensor(tables.COLORS[sprite.color])
            drawing.radius[i, j] = tables.RADII[sprite.size]
    return drawing


def coverage(
    shape: Int[Tensor, "*n"], radius: Float[Tensor, "*n"], dx: Float[Tensor, "*n #H #W"], dy: Float[Tensor, "*n #H #W"]
) -> Float[Tensor, "*n H W"]:
    """How much of each pixel a shape covers, in [0, 1]: one half on its outline, linear within half a pixel of it."""
    r = radius[..., None, None]
    circle = torch.sqrt(dx * dx + dy * dy) - r
    square = torch.maximum(dx.abs(), dy.abs()) - r
    # An isosceles triangle that stands on its base and fills the box: sides run from (0, -r) to (+-r, r).
    slope = 5**-0.5
    triangle = torch.maximum(slope * (2 * dx.abs() - dy) - slope * r, dy - r)
    kind = shape[..., None, None]
    distance = torch.where(kind == 0, circle, torch.where(kind == 1, square, triangle))
    return torch.where(r > 0, (0.5 - distance).clamp(0, 1), torch.zeros(()))


def _grid() -> tuple[Tensor, Tensor]:
    y = torch.arange(tables.HEIGHT, dtype=torch.float32) + 0.5
    x = torch.arange(tables.WIDTH, dtype=torch.float32) + 0.5
    return x[None, :], y[:, None]


def cross_coverage(center: Float[Tensor, "b 2"]) -> Float[Tensor, "b H W"]:
    """How much of each pixel the prohibited plus sign covers."""
    x, y = _grid()
    dx, dy = (x - center[:, 0, None, None]).abs(), (y - center[:, 1, None, None]).abs()
    long, wide = tables.CROSS_HALF_LENGTH, tables.CROSS_HALF_WIDTH
    across = torch.maximum(dx - long, dy - wide)
    upright = torch.maximum(dx - wide, dy - long)
    return (0.5 - torch.minimum(across, upright)).clamp(0, 1)


def background(drawing: Drawing) -> Frames:
    """The empty scene: a flat colour, striped where the camera pans."""
    x, _ = _grid()
    wave = torch.cos(2 * torch.pi * (x - drawing.stripes[:, :, None, None]) / tables.TEXTURE_PERIOD)
    amplitude = tables.TEXTURE_AMPLITUDE * drawing.panned[:, None, None, None]
    flat = drawing.background[:, None, :, None, None]
    striped = flat + (amplitude * wave)[:, :, None]
    return striped.expand(-1, -1, 3, tables.HEIGHT, tables.WIDTH)


def draw(drawing: Drawing) -> Frames:
    """Render a batch to RGB in [0, 1]; the second sprite is drawn over the first, the cross over both."""
    x, y = _grid()
    frames = background(drawing)
    for slot in range(2):
        dx = x - drawing.position[:, slot, :, 0, None, None]
        dy = y - drawing.position[:, slot, :, 1, None, None]
        mask = coverage(drawing.shape[:, slot], drawing.radius[:, slot], dx, dy)[:, :, None]
        frames = torch.lerp(frames, drawing.color[:, slot, :, :, None, None], mask)
    cross = (cross_coverage(drawing.cross) * drawing.has_cross[:, None, None])[:, None, None]
    magenta = torch.tensor(tables.CROSS_COLOR)[None, None, :, None, None]
    frames = torch.lerp(frames, magenta, cross)
    return (frames * drawing.gain[:, :, None, None, None]).clamp(0, 1)


def clips(scenes: Sequence[Scene], rng: random.Random) -> Frames:
    """Clean clips of scenes: `draw(layout(scenes, rng))`."""
    return draw(layout(scenes, rng))
