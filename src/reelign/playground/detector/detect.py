"""The rewards' eyes: palette segmentation (`segment`) and image moments, whole batches at once.

Each colour's coverage has an area, a centre and shape moments in every frame. Nothing here renders: the held-out
measures do (`judge.explain`), so that a policy cannot please both by one trick.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from reelign.batches import Videos
from reelign.playground.detector.segment import PALETTE, Shown, boxed, coverages
from reelign.playground.world import tables
from reelign.playground.world.memo import remembered
from reelign.playground.world.wanted import Frames, pixels

COLORS = len(tables.COLORS)
BACKGROUNDS = torch.tensor(list(tables.BACKGROUNDS.values()))
SMALL, LARGE = tables.RADII.values()
SMALL_AREA, LARGE_AREA = (2 * SMALL) ** 2, 2 * LARGE**2
"""The largest area of a small sprite (a square) and the smallest of a large one (a triangle), pixels."""
WINDOWS = (SMALL + 2.0, LARGE + 2.0)
"""Half the side of the window that a sprite's moments are taken in, for small and large areas, pixels."""
SEEN_AREA = (0.2 * 2 * SMALL**2, 0.75 * 2 * SMALL**2)
"""Areas (pixels) at which a sprite begins to be seen and is fully seen: shares of the smallest lawful one."""


@dataclass(frozen=True, slots=True)
class Detections:
    """What segmentation found, by clip, palette colour (magenta left out) and frame.

    `area` and `stray` are in pixels, inside and outside the colour's window; `center` [x, y] is the centroid in pixels
    (of no meaning where `area` is near 0). `moments` are four numbers that neither place nor size changes: skewness
    in y, E[x^2 y^2] / (E[x^2] E[y^2]), and E[x^2] / area and E[y^2] / area times 12. `backdrop` is the empty
    scene's colour, `wave` the complex amplitude of its stripes, `gain` each frame's brightness over the clip's median,
    `magenta` the coverage by the prohibited colour, `unlike` how far (RGB, rms) each frame is from what was found,
    painted in palette colours over the nearest background colour.
    """

    area: Float[Tensor, "b c f"]
    stray: Float[Tensor, "b c f"]
    center: Float[Tensor, "b c f 2"]
    moments: Float[Tensor, "b c f 4"]
    backdrop: Float[Tensor, "b 3"]
    wave: Complex[Tensor, "b f"]
    gain: Float[Tensor, "b f"]
    magenta: Float[Tensor, "b f H W"]
    unlike: Float[Tensor, "b f"]

    @property
    def seen(self) -> Float[Tensor, "b c f"]:
        """How surely a sprite of each colour is there in each frame, in [0, 1]."""
        low, high = SEEN_AREA
        return ((self.area - low) / (high - low)).clamp(0, 1)


def _even_out(frames: Frames) -> tuple[Tensor, Tensor, Tensor]:
    """Frames with dark or bright ones brought to the clip's brightness, the gains [b f] and the backdrop colour [b 3].

    A frame's median is the background's, for sprites cover less than a third of it; stripes move the median of a dark
    background, sprites that come and go move the mean. Whichever of the two changed less is believed.
    """
    middle = _medians(frames.flatten(3))
    levels = torch.stack([middle.sum(dim=-1), frames.mean(dim=(2, 3, 4))]).clamp_min(0.02)
    ratios = levels / levels.median(dim=2, keepdim=True).values
    gain = torch.where(ratios[0].log().abs() < ratios[1].log().abs(), ratios[0], ratios[1])
    safe = gain.clamp(0.25, 2.0)
    return frames / safe[:, :, None, None, None], gain, (middle / safe[..., None]).median(dim=1).values


def _medians(values: Float[Tensor, "*n m"]) -> Float[Tensor, "*n"]:
    """Medians over the last axis, the lower of the middle two, as torch's; NumPy finds them twelve times sooner."""
    middle = (values.shape[-1] - 1) // 2
    own = values.clone().numpy()  # a copy either way, and the lent frames stay untouched
    own.partition(middle, axis=-1)
    return torch.from_numpy(own[..., middle])


def _stripes(
    offset: Float[Tensor, "b f H W"], empty: Float[Tensor, "b f H W"]
) -> tuple[Complex[Tensor, "b f"], Float[Tensor, "b f W"]]:
    """Least-squares fit of `level + stripes` to the background's grey offset; the complex amplitude and the fit."""
    x = torch.arange(tables.WIDTH) + 0.5
    angle = 2 * torch.pi * x / tables.TEXTURE_PERIOD
    basis = torch.stack([torch.ones_like(x), angle.cos(), angle.sin()], dim=1)
    weight, values = empty.sum(dim=2), (empty * offset).sum(dim=2)
    normal = (weight[..., None, :] * basis.T) @ basis + torch.eye(3)
    level = torch.linalg.solve(normal, values @ basis)
    return torch.complex(level[..., 1], level[..., 2]), level @ basis.T


def _unlike(
    frames: Frames,
    backdrop: Float[Tensor, "b 3"],
    fit: Float[Tensor, "b f W"],
    maps: Float[Tensor, "n H W"],
    shown: Shown,
) -> Float[Tensor, "b f"]:
    """RGB distance (rms over pixels) of each frame from its coverages painted over the nearest background colour."""
    nearest = BACKGROUNDS[(backdrop[:, None] - BACKGROUNDS).square().sum(dim=-1).argmin(dim=1)]
    stripes = fit - fit.mean(dim=-1, keepdim=True)  # the level only mends a backdrop that large sprites biased
    floor = (nearest[:, None, :, None] + stripes[:, :, None])[..., None, :]
    over = (PALETTE[shown.color][:, :, None, None] - floor[shown.clip, shown.frame]) * maps[:, None]
    painted = shown.add(floor.expand_as(frames).contiguous(), over)
    return painted.sub_(frames).square_().mean(dim=(2, 3, 4)).sqrt()


def _powers(center: Float[Tensor, "*n"], size: int, highest: int, half: Tensor) -> Float[Tensor, "*n p s"]:
    """Powers 0..highest of the distance to `center` along an axis, zero outside a window that ends softly."""
    distance = torch.arange(size) + 0.5 - center[..., None]
    inside = (half[..., None] + 0.5 - distance.abs()).clamp(0, 1)
    powers = [inside]
    for _ in range(highest):
        powers.append(powers[-1] * distance)
    return torch.stack(powers, dim=-2)


def _moments(
    mask: Float[Tensor, "*n H W"], center: Float[Tensor, "*n 2"], half: Float[Tensor, "*n"], highest: int
) -> Float[Tensor, "*n p q"]:
    """Moments [y power, x power] of masks inside windows of half side `half` around their centres."""
    across = _powers(center[..., 0], mask.shape[-1], highest, half)
    upright = _powers(center[..., 1], mask.shape[-2], highest, half)
    return upright @ mask @ across.transpose(-1, -2)


def _densest(mask: Float[Tensor, "n H W"]) -> Float[Tensor, "n 2"]:
    """Centre [x, y] of the 9 x 9 box with the most coverage."""
    # NumPy finds the place of a maximum six times sooner than torch.
    peak = torch.from_numpy(boxed(mask, 9).flatten(1).numpy().argmax(axis=1))
    return torch.stack([peak % mask.shape[-1] + 0.5, peak // mask.shape[-1] + 0.5], dim=-1)


def _sprites(mask: Float[Tensor, "n H W"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Area [n], stray area [n], centre [n 2] and moments [n 4], as in `Detections`, of what coverage maps show."""
    start = _densest(mask)
    small, large = WINDOWS
    first = _moments(mask, start, torch.full_like(start[..., 0], large), 1)
    mass = first[..., 0, 0].clamp_min(1e-3)
    center = start + torch.stack([first[..., 0, 1], first[..., 1, 0]], dim=-1) / mass[..., None]
    grown = (first[..., 0, 0] - SMALL_AREA) / (LARGE_AREA - SMALL_AREA)
    half = small + (large - small) * grown.clamp(0, 1)
    m = _moments(mask, center, half, 3)
    area = m[..., 0, 0]
    mass = area.clamp_min(1e-3)
    drift = torch.stack([m[..., 0, 1], m[..., 1, 0]], dim=-1) / mass[..., None]
    xx, yy = m[..., 0, 2] / mass + 1 / 64, m[..., 2, 0] / mass + 1 / 64
    moments = torch.stack(
        [m[..., 3, 0] / mass / yy**1.5, m[..., 2, 2] / mass / (xx * yy), 12 * xx / mass, 12 * yy / mass], dim=-1
    )
    stray = mask.sum(dim=(-1, -2)) - area
    return area, stray.clamp_min(0), center + drift, moments.clamp(-4, 4)


@remembered(chunk=32)
def detect(videos: Videos) -> Detections:
    """Segment clips of the playground's size; a clip's detections do not depend on its neighbours."""
    even, gain, backdrop = _even_out(pixels(videos))
    apart = even - backdrop[:, None, :, None, None]
    near = (apart.square().sum(dim=2) < 0.3**2).float()
    wave, fit = _stripes(apart.mean(dim=2), near)
    empty = backdrop[:, None, :, None, None] + fit[:, :, None, None]
    maps, shown = coverages(even, empty)
    area, stray, center, moments = (shown.spread(found).transpose(1, 2)[:, :COLORS] for found in _sprites(maps))
    return Detections(
        area=area,
        stray=stray,
        center=center,
        moments=moments,
        backdrop=backdrop,
        wave=wave,
        gain=gain,
        magenta=shown.of(COLORS, maps),
        unlike=_unlike(even, backdrop, fit, maps, shown),
    )
