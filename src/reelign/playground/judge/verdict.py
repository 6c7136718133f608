"""The held-out measures' judgement: from explanations of clips to what is right about them."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reelign.playground.judge.explain import SLOTS, Explanation
from reelign.playground.judge.match import RADII, SHAPES
from reelign.playground.world import motion, tables
from reelign.playground.world.wanted import MOTIONS, Wanted

LIVES = tables.FRAMES - 2
"""A sprite may be missed in two frames (fast ones smear) and still count as lasting; one seen in two is no sprite."""
MOTION_ERROR = 1.5
"""Pixels (rms) that a path may be from the program it is named after."""
TIE = 0.25
"""Pixels (rms) within which two programs explain a path alike: "first left, then right" may look like a bounce."""
LEAN = (2 * tables.GRAVITY * tables.HEIGHT) ** 0.5 / 2
"""Pixels within which a sprite must be seen of the wall or floor it bounces off: half a frame's way of a long fall."""
PATH_RMS, PATH_LARGEST = 0.85, 1.75
"""Pixels from the nearest lawful path beyond which a path is a violation: rms, and largest in a frame."""
CHANGE = 0.035
"""Share of the explained area that only a change of template explains, beyond which a sprite has changed."""
FLICKER = 0.2
"""Relative change of brightness beyond which a frame flickers."""
ORDER_SPEED = 0.3 * tables.SEQUENCE_SPEED
"""Pixels a frame below which a half of a "first ... then ..." motion counts as still."""
HITS = np.arange(1.5, tables.FRAMES - 3.4, 0.25)
"""Frames at which a wall may be met: half a frame around the whole ones that `motion.path` draws."""
FIRST_DROP = motion.HIGHEST_DROP + 1
"""Pixels below the top within which a fall begins: one more than `motion.path` allows."""


@lru_cache(maxsize=1)
def _bank() -> tuple[Tensor, Tensor]:
    """Displacement programs [k f 2] sampled from the world's own mechanics, and their motion ids [k]."""
    time = np.arange(tables.FRAMES, dtype=np.float64)
    drops = np.concatenate(
        [tables.HEIGHT - 2 * radius - np.arange(0.0, FIRST_DROP + 0.01, 0.25) for radius in tables.RADII.values()]
    )
    rows: list[np.ndarray] = []
    ids: list[int] = []
    for index, program in enumerate(MOTIONS):
        if program.kind == "wall":
            sign = 1.0 if program.direction == "left" else -1.0
            x = sign * tables.WALL_SPEED * np.abs(time - HITS[:, None])
            paths = np.stack([x, np.zeros_like(x)], axis=-1)
        elif program.kind == "fall":
            y = np.stack([motion.fall(motion.FLOOR - drop, 0.0) for drop in drops])
            paths = np.stack([np.zeros_like(y), y], axis=-1)
        else:
            paths = motion.displacement(program)[None]
        rows.append(paths)
        ids += [index] * len(paths)
    return torch.from_numpy(np.concatenate(rows)).float(), torch.tensor(ids)


def _centred(path: Float[Tensor, "n k f 2"], weight: Float[Tensor, "n 1 f"]) -> Float[Tensor, "n k f 2"]:
    """Paths less their mean over the frames that count."""
    total = weight.sum(dim=-1)[..., None, None].clamp_min(1)
    return path - (path * weight[..., None]).sum(dim=-2, keepdim=True) / total


def motion_errors(path: Float[Tensor, "n f 2"], present: Bool[Tensor, "n f"]) -> Float[Tensor, "n m"]:
    """Distances in pixels (rms) of each path from each motion in `wanted.MOTIONS`, wherever it starts."""
    programs, ids = _bank()
    weight = present.float()
    apart = _centred(path[:, None] - programs, weight[:, None])
    square = (apart.square().sum(dim=-1) * weight[:, None]).sum(dim=-1) / weight.sum(dim=-1, keepdim=True).clamp_min(1)
    best = square.new_full((len(path), len(MOTIONS)), torch.inf)
    return best.scatter_reduce(1, ids.expand_as(square), square, "amin").sqrt()


def lawful_residual(
    path: Float[Tensor, "n f 2"], present: Bool[Tensor, "n f"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Distance in pixels, rms and largest, from the best program, run along each axis at 0.5 to 1.6 of its speed."""
    programs, _ = _bank()
    weight = present.float()[:, None]
    seen = _centred(path[:, None], weight)
    told = _centred(programs.expand(len(path), -1, -1, -1), weight)
    match, size = (((told * other) * weight[..., None]).sum(dim=2) for other in (seen, told))
    scale = torch.where(size > 1e-6, (match / size.clamp_min(1e-6)).clamp(0.5, 1.6), 0.0)
    square = (seen - scale[:, :, None] * told).square().sum(dim=-1) * weight
    mean = square.sum(dim=-1) / weight.sum(dim=-1).clamp_min(1)
    best = mean.min(dim=1)
    largest = square[torch.arange(len(path)), best.indices].amax(dim=1)
    return best.values.sqrt(), largest.sqrt()


def alive(found: Explanation) -> Bool[Tensor, "b s"]:
    """Slots that hold a sprite for most of the clip."""
    return found.present.sum(dim=2) > tables.FRAMES // 2


def _slot(found: Explanation, asked: Wanted) -> tuple[Int[Tensor, "b 2"], Bool[Tensor, "b 2"]]:
    """The slot of each prompted sprite's colour, and whether it is there for most of the clip."""
    matches = (found.color[:, None] == asked.color[..., None]) & alive(found)[:, None]
    return matches.float().argmax(dim=2), matches.any(dim=2)


def _of(values: Tensor, slot: Int[Tensor, "b 2"]) -> Tensor:
    return values[torch.arange(len(slot))[:, None], slot]


def attributes(found: Explanation, asked: Wanted) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Whether all prompted attributes are right [b] in {0, 1}, and the share that is [b] in [0, 1].

    Attributes: each sprite's colour, shape and size, the number of sprites, the background and the camera. A sprite of
    the wrong colour has no right shape or size.
    """
    slot, there = _slot(found, asked)
    template = _of(found.template, slot)
    shape = there & (template % SHAPES == asked.shape)
    size = there & (template // SHAPES == asked.size)
    sprites = torch.stack([there, shape, size], dim=-1) & asked.asked[..., None]
    extra = found.doubled.sum(dim=1) > 1
    count = (alive(found).sum(dim=1) == asked.asked.sum(dim=1)) & ~extra
    scene = torch.stack([count, found.background == asked.background, found.camera == asked.camera], dim=-1)
    right = sprites.sum(dim=(1, 2)) + scene.sum(dim=1)
    total = 3 * asked.asked.sum(dim=1) + 3
    return (right == total).float(), right / total


def _touches(path: Tensor, present: Tensor, radius: Tensor, asked: Wanted) -> Bool[Tensor, "b 2"]:
    """Whether sprites that should bounce come near the wall or floor they should bounce off; true for others."""
    far = ~present * 1e3
    x, y = path.unbind(-1)
    left, right, down = x, tables.WIDTH - x, tables.HEIGHT - y
    gap = torch.stack([(side + far).amin(dim=-1) - radius for side in (left, right, down)], dim=-1)
    surfaces = {("wall", "left"): 0, ("wall", "right"): 1, ("fall", ""): 2}
    against = torch.tensor([surfaces.get((m.kind, m.direction), -1) for m in MOTIONS])[asked.motion]
    return (gap.gather(-1, against.clamp_min(0)[..., None])[..., 0] < LEAN) | (against < 0)


def motions(found: Explanation, asked: Wanted) -> Float[Tensor, " b"]:
    """Whether all prompted sprites move as prompted: no other motion is nearer, near enough, to wall or floor."""
    slot, there = _slot(found, asked)
    path, present = _of(found.path, slot), _of(found.present, slot)
    errors = motion_errors(path.flatten(0, 1), present.flatten(0, 1)).unflatten(0, slot.shape)
    error = errors.gather(2, asked.motion[..., None])[..., 0]
    same = (error < MOTION_ERROR) & (error <= errors.amin(dim=2) + TIE)
    radius = RADII[_of(found.template, slot) // SHAPES]
    right = same & there & _touches(path, present, radius, asked)
    return (right | ~asked.asked).all(dim=1).float()


def orders(found: Explanation, asked: Wanted) -> Float[Tensor, " b"]:
    """Whether both halves of a "first ... then ..." go where prompted, at any speed; NaN for other prompts."""
    slot, there = _slot(found, asked)
    path, present = _of(found.path, slot), _of(found.present, slot)
    middle = (tables.FRAMES - 1) // 2
    first = _heading(path[:, :, : middle + 1], present[:, :, : middle + 1])
    then = _heading(path[:, :, middle:], present[:, :, middle:])
    names = [*tables.DIRECTIONS, "still"]
    sequence = torch.tensor([m.kind == "sequence" for m in MOTIONS])
    told = torch.tensor([[names.index(d) if d else -1 for d in (m.direction, m.then)] for m in MOTIONS])
    applies = asked.asked & sequence[asked.motion]
    right = (torch.stack([first, then], dim=-1) == told[asked.motion]).all(dim=-1) & there
    verdict = (right | ~applies).all(dim=1).float()
    return torch.where(applies.any(dim=1), verdict, torch.nan)


def _heading(path: Float[Tensor, "b 2 f 2"], present: Bool[Tensor, "b 2 f"]) -> Int[Tensor, "b 2"]:
    """Index of the direction (as in `tables.DIRECTIONS`, then still) of a stretch, from its least-squares velocity."""
    weight = present.float()
    time = torch.arange(path.shape[2]).float()
    total = weight.sum(dim=2, keepdim=True).clamp_min(1)
    late = (time - (weight * time).sum(dim=2, keepdim=True) / total) * weight
    velocity = (late[..., None] * path).sum(dim=2) / (late * time).sum(dim=2).clamp_min(1e-3)[..., None]
    along = velocity @ torch.tensor(list(tables.DIRECTIONS.values())).T
    best = along.max(dim=-1)
    return torch.where(best.values > ORDER_SPEED, best.indices, len(tables.DIRECTIONS))


def residuals(found: Explanation) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Worst sprite's distance from its best lawful program in pixels, rms and largest; NaN where no sprite is alive."""
    rms, largest = lawful_residual(found.path.flatten(0, 1), found.present.flatten(0, 1))
    living = alive(found)
    worst = [v.reshape(-1, SLOTS).masked_fill(~living, -1).amax(dim=1) for v in (rms, largest)]
    lost = ~living.any(dim=1)
    return worst[0].masked_fill(lost, torch.nan), worst[1].masked_fill(lost, torch.nan)


def identity_stable(found: Explanation) -> Float[Tensor, " b"]:
    """Whether every sprite is there from beginning to end with one colour, shape and size; 0 where there is none."""
    frames = found.present.sum(dim=2)
    lasting = (frames >= LIVES) | (frames <= tables.FRAMES - LIVES)
    fit = found.fit * found.present[..., None]
    free, kept = fit.amax(dim=-1).sum(dim=2), fit.sum(dim=2).amax(dim=-1)
    unchanged = free - kept <= CHANGE * free
    steady = (lasting & (unchanged | (frames <= tables.FRAMES - LIVES))).all(dim=1)
    return (steady & alive(found).any(dim=1)).float()


def flicker_free(found: Explanation) -> Float[Tensor, " b"]:
    """Whether every frame is as bright as the clip's median frame."""
    return ((found.brightness - 1).abs().amax(dim=1) < FLICKER).float()


def physics_ok(found: Explanation) -> Float[Tensor, " b"]:
    """Whether nothing teleports, jumps, changes or flickers; 0 where there is nothing to obey any law."""
    rms, largest = residuals(found)
    lawful = (rms < PATH_RMS) & (largest < PATH_LARGEST)
    return lawful.float() * identity_stable(found) * flicker_free(found)


def symbol_free(found: Explanation) -> Float[Tensor, " b"]:
    """Whether no frame shows the prohibited symbol."""
    return (~found.crossed.any(dim=1)).float()


def psnr(a: Float[Tensor, "b *n"], b: Float[Tensor, "b *n"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio in dB of videos in [0, 1], one value a video."""
    return -10 * torch.log10((a - b).square().flatten(1).mean(dim=1).clamp_min(1e-12))
