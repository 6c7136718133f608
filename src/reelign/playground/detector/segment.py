"""Segmentation by palette: how much of each pixel each colour covers.

Every pixel is explained as `background + coverage * (color - background)` for the palette colour that its neighbourhood
supports. Large maps are changed in place: what is slow here is memory.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reelign.playground.world import tables
from reelign.playground.world.wanted import Frames

PALETTE = torch.tensor([*tables.COLORS.values(), tables.CROSS_COLOR])
"""Sprite colours in the order of `tables.COLORS`, then the prohibited magenta."""
CORE_STD = 0.1
"""Colour distance (RGB) at which a pixel stops to look like a palette colour."""
OFF_STD = 0.15
"""Colour distance at which a pixel stops to look like a mixture of the background and a palette colour."""
ABSENT = 1e-3
"""How sure the surest pixel of a colour is in a frame that does not show it; cubed, it is far less than what counts."""
LEAST_SUPPORT = 0.004
"""Share of a 9 x 9 box that must be pure and thick for its colour to count."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Which colours which frames show: few of them in most frames, and work on the others would be lost.

    `clip`, `frame` and `color` index the dense [b f c]; `size` is (b, f).
    """

    clip: Int[Tensor, " n"]
    frame: Int[Tensor, " n"]
    color: Int[Tensor, " n"]
    size: tuple[int, int]

    def spread(self, values: Float[Tensor, "n *m"]) -> Float[Tensor, "b f c *m"]:
        """Values by clip, frame and colour; 0 where a colour is not shown."""
        dense = values.new_zeros(*self.size, len(PALETTE), *values.shape[1:])
        dense[self.clip, self.frame, self.color] = values
        return dense

    def of(self, color: int, values: Float[Tensor, "n *m"]) -> Float[Tensor, "b f *m"]:
        """One colour's values by clip and frame; 0 where it is not shown."""
        dense, own = values.new_zeros(*self.size, *values.shape[1:]), self.color == color
        dense[self.clip[own], self.frame[own]] = values[own]
        return dense

    def add(self, pictures: Float[Tensor, "b f *m"], values: Float[Tensor, "n *m"]) -> Float[Tensor, "b f *m"]:
        """Pictures with the values of all their colours added, in place."""
        pictures.flatten(0, 1).index_add_(0, self.clip * self.size[1] + self.frame, values)
        return pictures


def coverages(frames: Frames, empty: Float[Tensor, "b f 3 1 W"]) -> tuple[Tensor, Shown]:
    """How much of each pixel each palette colour covers, as maps [n H W] of the colours that are there at all.

    `empty` is the scene without sprites, the same in all rows. An outline pixel is a mixture that may look like a third
    colour (white over dark is near purple), so a pixel goes to the colours that have a pure, thick spot nearby, and
    among these to the ones whose mixtures with the background it is near to.
    """
    norms = PALETTE.square().sum(dim=1)[:, None, None]
    to_empty = (frames - empty).square().sum(dim=2, keepdim=True)
    # Squared distances less |p|^2, which is the same for all colours of a pixel.
    to_color = _by_pixel(-2 * PALETTE, frames).add_(norms)
    to_floor = to_empty - frames.square().sum(dim=2, keepdim=True)
    pure = torch.cat([to_floor, to_color], dim=2).div_(-2 * CORE_STD**2).softmax(dim=2)[:, :, 1:]
    there = pure.amax(dim=(-1, -2)) > ABSENT
    clip, frame, color = there.nonzero(as_tuple=True)
    shown = Shown(clip, frame, color, (frames.shape[0], frames.shape[1]))
    support = boxed(_thick(pure[there]).pow_(3), 9)
    # <p - B, c - B> / |c - B|^2 from inner products, so that no map of colours by channels is made
    from_empty = empty.square().sum(dim=2, keepdim=True) + _by_pixel(-2 * PALETTE, empty)
    length = (from_empty + norms).clamp_min(0.02)[there]
    along = to_color[there].sub_(to_floor[clip, frame, 0]).sub_(length).div_(-2)
    part = (along / length).clamp_(0, 1)
    off = (part * length).sub_(along, alpha=2).mul_(part).add_(to_empty[clip, frame, 0])
    support.mul_(off.div_(-2 * OFF_STD**2).exp_())
    total = shown.add(torch.full_like(to_empty[:, :, 0], LEAST_SUPPORT), support)
    # A smooth step keeps the area of an outline and drops what noise leaves far from any sprite.
    smooth = (3 - 2 * part).mul_(part).mul_(part)
    return smooth.mul_(support).div_(total[clip, frame]), shown


def _by_pixel(matrix: Float[Tensor, "i j"], maps: Float[Tensor, "b f j H W"]) -> Float[Tensor, "b f i H W"]:
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
