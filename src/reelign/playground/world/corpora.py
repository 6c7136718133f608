"""The playground's data sets: noisy clips to pretrain on, clean ones to instruct with, prompts to train and judge."""

import random
from dataclasses import dataclass

from reelign.playground.world import grammar, render, tables
from reelign.playground.world.defects import DEFECTS, add_cross, break_clip
from reelign.playground.world.scene import Scene, mislabel, sample
from reelign.playground.world.wanted import Frames

WRONG_CAPTIONS = 0.15
BROKEN_PHYSICS = 0.20
CROSSES = 0.05


@dataclass(frozen=True, slots=True)
class Captioned:
    """Clips [b f 3 H W] in [0, 1] with their captions and the scenes that were really drawn."""

    clips: Frames
    captions: tuple[str, ...]
    scenes: tuple[Scene, ...]


def pretraining(n: int, seed: int, couples: float = tables.COUPLES) -> Captioned:
    """`n` clips of all scenes as found in the wild: 15 % wrong captions, 20 % broken physics, 5 % with the symbol.

    A share `couples` of them has two sprites.
    """
    rng = random.Random(seed)
    scenes = tuple(sample(rng, None, couples) for _ in range(n))
    drawing = render.layout(scenes, rng)
    for index in range(n):
        if rng.random() < BROKEN_PHYSICS:
            break_clip(drawing, index, rng.choice(DEFECTS), rng)
        if rng.random() < CROSSES:
            add_cross(drawing, index, rng)
    said = [mislabel(s, rng) if rng.random() < WRONG_CAPTIONS else s for s in scenes]
    return Captioned(render.draw(drawing), tuple(grammar.caption(s, rng) for s in said), scenes)


def instruction(n: int, seed: int) -> Captioned:
    """`n` clean clips, each with a right caption in one of its paraphrases."""
    rng = random.Random(seed)
    scenes = tuple(sample(rng) for _ in range(n))
    clips = render.clips(scenes, rng)
    return Captioned(clips, tuple(grammar.caption(s, rng) for s in scenes), scenes)


def prompts(n: int, seed: int, held_out: bool = False) -> tuple[str, ...]:
    """`n` different captions; with `held_out`, of scenes whose pair or order training never prompts."""
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        found[grammar.caption(sample(rng, held_out), rng)] = None
    return tuple(found)
