"""What can happen in the playground: scenes as plain values, and how they are drawn at random."""

import random
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from reelign.playground.world import tables

MotionKind = Literal["still", "move", "wall", "fall", "sequence"]


@dataclass(frozen=True, slots=True)
class Motion:
    """One sprite's motion.

    `still` and `fall` carry nothing; `move` has `direction` and `speed`; `wall` has `direction`, the wall it bounces
    off (left or right); `sequence` has `direction` first and `then` second, each one of the four directions or "still".
    """

    kind: MotionKind
    direction: str = ""
    speed: str = ""
    then: str = ""


@dataclass(frozen=True, slots=True)
class Sprite:
    """A coloured shape and what it does."""

    shape: str
    color: str
    size: str
    motion: Motion


@dataclass(frozen=True, slots=True)
class Scene:
    """One or two sprites, a background and a camera: all that a caption says, nothing that it does not say."""

    sprites: tuple[Sprite, ...]
    background: str
    camera: str = "still"


STILL = Motion("still")
DIRECTED = tuple(Motion("move", d, s) for d, s in product(tables.DIRECTIONS, tables.SPEEDS))
WALLS = (Motion("wall", "left"), Motion("wall", "right"))
FALL = Motion("fall")
SEQUENCES = tuple(
    Motion("sequence", first, then=then)
    for first, then in product((*tables.DIRECTIONS, "still"), repeat=2)
    if first != then
)
HELD_OUT_SEQUENCES = tuple(m for m in SEQUENCES if (m.direction, m.then) in tables.HELD_OUT_ORDERS)
SEEN_SEQUENCES = tuple(m for m in SEQUENCES if m not in HELD_OUT_SEQUENCES)
PAIRS: tuple[tuple[str, str], ...] = tuple(product(tables.COLORS, tables.SHAPES))
SEEN_PAIRS = tuple(p for p in PAIRS if p not in tables.HELD_OUT_PAIRS)


def is_held_out(scene: Scene) -> bool:
    """Whether the scene holds a colour-shape pair or a motion order that training never prompts."""
    return any((s.color, s.shape) in tables.HELD_OUT_PAIRS or s.motion in HELD_OUT_SEQUENCES for s in scene.sprites)


def _motion(rng: random.Random, sequences: tuple[Motion, ...]) -> Motion:
    kind = rng.choices(("still", "move", "wall", "fall", "sequence"), weights=(1, 4, 1, 1, 2))[0]
    if kind == "move":
        return rng.choice(DIRECTED)
    if kind == "wall":
        return rng.choice(WALLS)
    if kind == "sequence":
        return rng.choice(sequences)
    return STILL if kind == "still" else FALL


def _pair_motions(rng: random.Random) -> tuple[Motion, Motion]:
    """Two motions along one axis, so that the sprites keep to their own halves of the frame and never meet."""
    axis = rng.choice((("left", "right"), ("up", "down")))
    choices = (STILL, *(m for m in DIRECTED if m.direction in axis))
    return rng.choice(choices), rng.choice(choices)


def sample(rng: random.Random, held_out: bool | None = False, couples: float = tables.COUPLES) -> Scene:
    """Draw a scene that holds no pair and no order that training never prompts.

    With `held_out` it holds one; with `held_out=None` it is any scene, as in pretraining. A share `couples` of
    the scenes has two sprites; a quarter of the cameras pan.
    """
    camera = rng.choices(tuple(tables.CAMERAS), weights=(6, 1, 1))[0]
    background = rng.choice(tuple(tables.BACKGROUNDS))
    two = rng.random() < couples
    orders, known = (SEQUENCES, PAIRS) if held_out is None else (SEEN_SEQUENCES, SEEN_PAIRS)
    new_order = held_out and not two and rng.random() < 1 / 2
    motions = _pair_motions(rng) if two else (_motion(rng, orders),)
    if new_order:
        motions = (rng.choice(HELD_OUT_SEQUENCES),)
    pairs = [rng.choice(known) for _ in motions]
    if held_out and not new_order:
        pairs[rng.randrange(len(pairs))] = rng.choice(tuple(sorted(tables.HELD_OUT_PAIRS)))
    while two and pairs[0][0] == pairs[1][0]:  # sprites differ in colour, so that words can tell them apart
        index = 0 if pairs[1] in tables.HELD_OUT_PAIRS else 1
        pairs[index] = rng.choice(known)
    sprites = tuple(
        Sprite(shape, color, rng.choice(tuple(tables.RADII)), motion)
        for (color, shape), motion in zip(pairs, motions, strict=True)
    )
    return Scene(sprites, background, camera)


def mislabel(scene: Scene, rng: random.Random) -> Scene:
    """The scene with one sprite's shape, colour, size or motion replaced by a wrong one."""
    while True:
        other = sample(rng, held_out=None)
        index = rng.randrange(len(scene.sprites))
        old, new = scene.sprites[index], other.sprites[0]
        field = rng.choice(("shape", "color", "size", "motion"))
        if len(scene.sprites) == 2 and field == "motion":
            new = replace(new, motion=rng.choice(_pair_motions(rng)))
        wrong = replace(old, **{field: getattr(new, field)})
        sprites = tuple(wrong if i == index else s for i, s in enumerate(scene.sprites))
        result = replace(scene, sprites=sprites)
        distinct = len({s.color for s in sprites}) == len(sprites)
        if wrong != old and distinct:
            return result
