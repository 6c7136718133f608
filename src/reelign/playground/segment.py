"""Segmentation by palette: how much of each pixel each colour covers.

Every pixel is explained as `background + coverage * (color - background)` for the palette colour that its neighbourhood
supports. Large maps are changed in place: what is slow here is memory.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reelign.playground import tables

PALETTE = torch.tensor([*tables.COLORS.values(), tables.CROSS_COLOR])
"""Sprite colours in the order of `tables.COLORS`, then the prohibited magenta."""
CORE_STD = 0.1
"""Colour distance (RGB) at which a pixel stops to look like a palette colour."""
OFF_STD = 0.15
"""Colour distance at which a pixel stops to look like a mixture of the background and a palette colour."""
ABSENT = 1e-9
"""How thick (cubed) the thickest spot of a colour is below which a frame does not show it: far less than counts."""
LEAST_SUPPORT = 0.004
"""Share of a 9 x 9 box that must be pure and thick for its colour to count."""


@dataclass(frozen=True, slots=True)
class Covers:
    """Coverage maps of the colours that are there at all: in most frames few of them are, and work on the rest is lost.

    `clip`, `frame` and `color` index the dense [b f c]; `size` is (b, f).
    """

    maps: Float[Tensor, "n H W"]
    clip: Int[Tensor, " n"]
    frame: Int[Tensor, " n"]
    color: Int[Tensor, " n"]
    size: tuple[int, int]

    def spread(self, values: Float[Tensor, "n *m"]) -> Float[Tensor, "b f c *m"]:
        """What was found of each map, by clip, frame and colour; 0 where there is none."""
        dense = values.new_zeros(*self.size, len(PALETTE), *values.shape[1:])
        dense[self.clip, self.frame, self.color] = values
        return dense


def coverages(frames: Float[Tensor, "b f 3 H W"], empty: Float[Tensor, "b f 3 1 W"]) -> Covers:
    """How much of each pixel each palette colour covers; `empty` is the scene without sprites, the same in all rows.

    An outline pixel is a mixture that may look like a third colour (white over dark is near purple), so a pixel goes to
    the colours that have a pure, thick spot nearby, and among these to the ones whose mixtures with the background
    it is near to.
    """
    norms = PALETTE.square().sum(dim=1)[:, None, None]
    to_color = by_pixel(-2 * PALETTE, frames)
    to_color += frames.square().sum(dim=2, keepdim=True)
    to_color += norms
    to_empty = (frames - empty).square().sum(dim=2, keepdim=True)
    pure = torch.cat([to_empty, to_color], dim=2).div_(-2 * CORE_STD**2).softmax(dim=2)[:, :, 1:]
    spots = _thick(pure).pow_(3)
    there = spots.amax(dim=(-1, -2)) > ABSENT
    clip, frame, color = there.nonzero(as_tuple=True)
    support = boxed(spots[there], 9)
    # <p - B, c - B> / |c - B|^2 from inner products, so that no map of colours by channels is made
    from_empty = empty.square().sum(dim=2, keepdim=True) + by_pixel(-2 * PALETTE, empty)
    length = (from_empty + norms).clamp_min(0.02)[there]
    from_floor = to_empty[clip, frame, 0]
    along = to_color[there].sub_(from_floor).sub_(length).div_(-2)
    part = (along / length).clamp_(0, 1)
    off = (part * length).sub_(along, alpha=2).mul_(part).add_(from_floor)
    support.mul_(off.div_(-2 * OFF_STD**2).exp_())
    picture = clip * frames.shape[1] + frame
    total = to_empty.flatten(0, 2).fill_(LEAST_SUPPORT).index_add_(0, picture, support)
    # A smooth step keeps the area of an outline and drops what noise leaves far from any sprite.
    smooth = (3 - 2 * part).mul_(part).mul_(part)
    maps = smooth.mul_(support).div_(total[picture])
    return Covers(maps, clip, frame, color, (frames.shape[0], frames.shape[1]))


def by_pixel(matrix: Float[Tensor, "i j"], maps: Float[Tensor, "b f j H W"]) -> Float[Tensor, "b f i H W"]:
    """A linear map of each pixel's values. Colours stand next to pixels for it: no map is laid out anew."""
    return (matrix @ maps.flatten(3)).unflatten(3, maps.shape[3:])


def _thick(maps: Float[Tensor, "*n H W"]) -> Float[Tensor, "*n H W"]:
    """Means over 3 x 3 boxes, zeros outside; adding neighbours takes less than half the time of `boxed`."""
    rows = maps.clone()
    rows[..., 1:, :] += maps[..., :-1, :]
    rows[..., :-1, :] += maps[..., 1:, :]
    both = rows.clone()
    both[..., 1:] += rows[..., :-1]
    both[..., :-1] += rows[..., 1:]
    return both.div_(9)


def boxed(maps: Float[Tensor, "*n H W"], side: int) -> Float[Tensor, "*n H W"]:
    """Means over `side` x `side` boxes, zeros outside; two matrix products, far faster than pooling."""
    rows, columns = (torch.arange(n) for n in maps.shape[-2:])
    upright = ((rows[:, None] - rows).abs() <= side // 2).float() / side
    across = ((columns[:, None] - columns).abs() <= side // 2).float() / side
    return upright @ maps @ across
