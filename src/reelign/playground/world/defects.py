"""Breaking clips on purpose: the defects of the pretraining set, which are also what the verifiers must catch."""

import random
from typing import Literal, get_args

import torch

from reelign.playground.world import tables
from reelign.playground.world.render import COLOR_TABLE, SHAPE_NAMES, Drawing

Defect = Literal["teleport", "speed_jump", "morph", "flicker"]
DEFECTS: tuple[Defect, ...] = get_args(Defect)


def add_cross(drawing: Drawing, index: int, rng: random.Random) -> None:
    """Put the prohibited symbol, at rest, somewhere into clip `index`."""
    margin = tables.CROSS_HALF_LENGTH + 1
    drawing.has_cross[index] = True
    drawing.cross[index] = torch.tensor(
        [rng.uniform(margin, tables.WIDTH - margin), rng.uniform(margin, tables.HEIGHT - margin)]
    )


def _clamp(drawing: Drawing, index: int, slot: int) -> None:
    radius = float(drawing.radius[index, slot, 0])
    path = drawing.position[index, slot]
    path[:, 0].clamp_(radius, tables.WIDTH - radius)
    path[:, 1].clamp_(radius, tables.HEIGHT - radius)


def _teleport(drawing: Drawing, index: int, slot: int, rng: random.Random) -> None:
    """From a middle frame on, the sprite is somewhere else: 7 to 14 pixels away."""
    frame = rng.randint(3, tables.FRAMES - 3)
    path = drawing.position[index, slot]
    before = path.clone()
    for _ in range(100):
        angle = torch.tensor(rng.uniform(0, 2 * torch.pi))
        path.copy_(before)
        path[frame:] += rng.uniform(7, 14) * torch.stack([angle.cos(), angle.sin()])
        _clamp(drawing, index, slot)
        natural = before[frame] - before[frame - 1]
        if (path[frame] - path[frame - 1] - natural).norm() >= 5:
            return


def _speed_jump(drawing: Drawing, index: int, slot: int, rng: random.Random) -> None:
    """For three frames in the middle, the sprite darts off and darts back: 3 to 5 pixels a frame."""
    frame = rng.randint(2, tables.FRAMES - 6)
    path = drawing.position[index, slot]
    room = torch.tensor([tables.WIDTH / 2, tables.HEIGHT / 2]) - path[frame]
    axis = rng.randrange(2)
    sign = 1.0 if room[axis] >= 0 else -1.0
    speed = sign * rng.uniform(3, 5)
    path[frame + 1, axis] += speed
    path[frame + 2, axis] += 2 * speed
    path[frame + 3, axis] += speed
    _clamp(drawing, index, slot)


def _morph(drawing: Drawing, index: int, slot: int, rng: random.Random) -> None:
    """From a middle frame on, the sprite has another colour, or another shape and size."""
    frame = rng.randint(3, tables.FRAMES - 3)
    if rng.random() < 0.5:
        now = drawing.color[index, slot, 0]
        others = [c for c in COLOR_TABLE if (c - now).abs().max() > 0.05]
        drawing.color[index, slot, frame:] = rng.choice(others)
    else:
        shape = int(drawing.shape[index, slot, 0])
        drawing.shape[index, slot, frame:] = rng.choice([s for s in range(len(SHAPE_NAMES)) if s != shape])
        small, large = tables.RADII["small"], tables.RADII["large"]
        drawing.radius[index, slot, frame:] = small if float(drawing.radius[index, slot, 0]) == large else large
        _clamp(drawing, index, slot)


def _flicker(drawing: Drawing, index: int, slot: int, rng: random.Random) -> None:
    """Two to four single frames go dark, whatever the slot."""
    for frame in rng.sample(range(1, tables.FRAMES - 1), rng.randint(2, 4)):
        drawing.gain[index, frame] = rng.uniform(0.35, 0.6)


def break_clip(drawing: Drawing, index: int, defect: Defect, rng: random.Random) -> None:
    """Apply one defect to clip `index` of a drawing, in place."""
    slot = 1 if float(drawing.radius[index, 1, 0]) > 0 and rng.random() < 0.5 else 0
    breaks = {"teleport": _teleport, "speed_jump": _speed_jump, "morph": _morph, "flicker": _flicker}
    breaks[defect](drawing, index, slot, rng)
