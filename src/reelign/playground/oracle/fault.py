"""Where a clip is wrong: its difference from the nearest clip that is right for its prompt, pixel by pixel.

What a prompt leaves open (where a sprite starts, when it meets a wall, how high it falls from, the stripes' phase) is
fitted to the clip; the clip so described is drawn, and what is left is the fault. "Nearest" counts wrong pixels: how
far off a colour is hardly matters once it is off (`HALF`). So

- a sprite of another colour, shape or size is right where it is, and its colour, its corners or its rim are wrong;
- a sprite that moves otherwise than asked is laid on the asked path where the two agree best; elsewhere the place where
  it is and the place where it should be are both wrong;
- of a path that breaks in two, the part is right that explains more of the clip, be it the earlier or the later one;
- a sprite that is nowhere could be anywhere: its fault is spread evenly over all lawful paths;
- the prohibited symbol, sprites that nobody asked for, and all of a frame that flickers are wrong as they stand.

These eyes know what they look for, so they share no code with those of the rewards or of the held-out measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from reelign.batches import Videos
from reelign.playground.oracle import places
from reelign.playground.world import render, tables
from reelign.playground.world.wanted import Frames, Wanted, pixels, wanted

AT_ONCE = 16
"""Clips looked at together: few enough that their maps stay in the processor's cache."""
HALF = 0.25
"""Colour distance (RGB) at which a pixel counts as half wrong."""
LOST = 0.2
"""Share of its area in which a sprite must find something else than what is behind it, else it is nowhere."""
BLUR, EDGE = 0.05, 0.25
"""Ordinary blur: an error in a colour channel of BLUR, and where sprites have outlines, EDGE of the range that the
channel has in the pixel and its eight neighbours. The packaged codec keeps 99 % of a right clip's pixels within it."""
PHASES = 32


@dataclass(frozen=True, slots=True)
class Nearest:
    """The right clip nearest to each clip.

    `frames` shows the sprites that have a place, on `background`; `lost` is the share of a sprite without one that each
    pixel is expected to hold, 0 for sprites that have a place.
    """

    frames: Frames
    background: Frames
    lost: Float[Tensor, "b 2 f H W"]


def fault(videos: Videos, prompts: Sequence[str]) -> Float[Tensor, "b F H W"]:
    """How wrong each pixel of each frame is for its prompt, in [0, 1]: 0 where it is right but for ordinary blur.

    It is the absolute difference of each colour channel above that blur, summed over the channels, on the CPU. A clip's
    faults do not depend on its neighbours.

    Raises:
        BadData: the videos are not of the playground's geometry.
        UnknownCaption: a prompt is outside the playground's grammar.
    """
    frames = pixels(videos)
    if len(frames) == 0:
        return frames.new_zeros(0, tables.FRAMES, tables.HEIGHT, tables.WIDTH)
    cuts = [slice(start, start + AT_ONCE) for start in range(0, len(frames), AT_ONCE)]
    return torch.cat([_fault(frames[cut], wanted(prompts[cut])) for cut in cuts])


def pooled(maps: Float[Tensor, "b F H W"], grid: tuple[int, int, int]) -> Float[Tensor, "b f h w"]:
    """Maps of pixels as maps of latents: means over the pixels and frames that each latent element stands for.

    The first frame stands alone and the others in equal groups, as in Wan's causal codec.

    Args:
        maps: ``[b F H W]``.
        grid: f, h, w of the latent; F is 1 + k (f - 1), H and W are multiples of h and w.
    """
    placed = F.adaptive_avg_pool2d(maps, grid[1:])
    first, later = placed[:, :1], placed[:, 1:]
    together = later.shape[1] // max(grid[0] - 1, 1)
    return torch.cat([first, later.reshape(len(maps), grid[0] - 1, together, *grid[1:]).mean(dim=2)], dim=1)


def _fault(frames: Frames, asked: Wanted) -> Float[Tensor, "b f H W"]:
    right = nearest(frames, asked)
    sprites = (right.frames - right.background).flatten(0, 1)
    spread = F.max_pool2d(sprites, 3, stride=1, padding=1) + F.max_pool2d(-sprites, 3, stride=1, padding=1)
    wrong = _above(frames - right.frames, BLUR + EDGE * spread.reshape(frames.shape))
    for slot in range(2):
        color = render.COLOR_TABLE[asked.color[:, slot]][:, None, :, None, None]
        wrong = torch.lerp(wrong, _above(frames - color, BLUR), right.lost[:, slot])
    return wrong


def _above(difference: Frames, blur: Tensor | float) -> Float[Tensor, "b f H W"]:
    return (difference.abs() - blur).clamp_min(0).sum(dim=2).clamp_max(1)


def nearest(frames: Frames, asked: Wanted) -> Nearest:
    """Fit what the prompts leave open and draw it; of two sprites, the one with more evidence comes first."""
    background = _background(frames, asked)
    cover, evidence = _laid(frames, background, asked, asked.asked)
    first = asked.asked & (torch.arange(2) == evidence.argmax(dim=1)[:, None])
    second = asked.asked & ~first
    if bool(second.any()):
        shown = _painted(background, asked, cover * first[..., None, None, None])
        again, beside = _laid(frames, shown, asked, second)
        cover = torch.where(second[..., None, None, None], again, cover)
        evidence = torch.where(second, beside, evidence)
    found = (evidence > LOST)[..., None, None, None]
    return Nearest(_painted(background, asked, cover * found), background, cover * ~found)


def _background(frames: Frames, asked: Wanted) -> Frames:
    """The prompted empty scenes, their stripes in the phase that removes the most squared error near their colour."""
    flat = render.BACKGROUND_TABLE[asked.background]
    apart = frames - flat[:, None, :, None, None]
    near = (apart.square().sum(dim=2) < 0.3**2).float()
    seen, count = (near * apart.mean(dim=2)).sum(dim=2), near.sum(dim=2)
    speed = torch.tensor(list(tables.CAMERAS.values()))[asked.camera]
    start = torch.arange(PHASES) * (tables.TEXTURE_PERIOD / PHASES)
    phase = start[:, None] + speed[:, None, None] * torch.arange(frames.shape[1])
    x = torch.arange(tables.WIDTH) + 0.5
    wave = tables.TEXTURE_AMPLITUDE * torch.cos(2 * torch.pi * (x - phase[..., None]) / tables.TEXTURE_PERIOD)
    removed = (2 * seen[:, None] * wave - count[:, None] * wave.square()).sum(dim=(2, 3))
    best = wave[torch.arange(len(frames)), removed.argmax(dim=1)]
    striped = flat[:, None, :, None] + ((speed != 0)[:, None, None] * best)[:, :, None]
    return striped.clamp(0, 1)[..., None, :].expand(frames.shape)


def _painted(background: Frames, asked: Wanted, cover: Float[Tensor, "b 2 f H W"]) -> Frames:
    """Sprites of the prompted colours over a background, the second over the first as in `render.draw`."""
    colors = render.COLOR_TABLE[asked.color][:, :, None, :, None, None]
    for slot in range(2):
        background = torch.lerp(background, colors[:, slot], cover[:, slot, :, None])
    return background


def _laid(
    frames: Frames, behind: Frames, asked: Wanted, which: Bool[Tensor, "b 2"]
) -> tuple[Float[Tensor, "b 2 f H W"], Float[Tensor, "b 2"]]:
    """The prompted sprites, each on its best path over what is `behind`: coverage and evidence, 0 for all but `which`.

    Evidence is the mean over a sprite of `|p - behind| + |behind - color| - |p - color|` in terms of `_wrong`: 0 where
    the clip shows what is behind, 1 where it shows a third colour, up to 2 where it shows the sprite's own.
    """
    clip, slot = which.nonzero(as_tuple=True)
    color = render.COLOR_TABLE[asked.color[clip, slot]][:, None, :, None, None]
    gain = (_wrong(frames - behind)[clip] - _wrong(frames[clip] - color)).flatten(2)
    other = gain + _wrong(behind[clip] - color).flatten(2)
    shape, size, program = (table[clip, slot] for table in (asked.shape, asked.size, asked.motion))
    cover, evidence = torch.zeros_like(gain), gain.new_zeros(len(clip))
    for form in torch.stack([shape, size], dim=1).unique(dim=0).tolist():
        same = ((shape == form[0]) & (size == form[1])).nonzero()[:, 0]
        stamps = places.stamps(*form)
        area = stamps[0].sum()
        # One product a sprite: in a larger one neighbours would change the rounding, and so break ties between places.
        scores = torch.stack([one @ stamps.T for one in gain[same]]) / area
        for index in program[same].unique().tolist():
            moved = (program[same] == index).nonzero()[:, 0]
            rows, placed = same[moved], stamps[places.followed(scores[moved], places.paths(index, form[1]))]
            seen = (placed * other[rows]).sum(dim=2).mean(dim=1) / area
            cover[rows] = torch.where((seen > LOST)[:, None, None], placed, places.anywhere(*form, index))
            evidence[rows] = seen
    full = frames.new_zeros(*which.shape, *frames.shape[1:2], *frames.shape[3:])
    full[clip, slot] = cover.unflatten(2, frames.shape[3:])
    return full, frames.new_zeros(which.shape).index_put((clip, slot), evidence)


def _wrong(difference: Frames) -> Float[Tensor, "b f H W"]:
    """How much each pixel counts as wrong, in [0, 1): a half at a distance of `HALF`."""
    square = difference.square().sum(dim=2)
    return square / (square + HALF**2)
