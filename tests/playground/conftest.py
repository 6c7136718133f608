"""Labelled clips: right ones, broken ones, and what the packaged generator's codec makes of them."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reelign.batches import Videos
from reelign.playground.make import codec, tiny
from reelign.playground.world import corpora, grammar, render, tables
from reelign.playground.world.defects import DEFECTS, add_cross, break_clip
from reelign.playground.world.scene import Scene, mislabel, sample

torch.set_num_threads(1)

Labelled = tuple[Videos, list[str]]
RIGHT, BROKEN = 420, 150
"""Clips of each right kind (a share of 99 % needs hundreds) and of each broken kind."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "blocks" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("labelled"))  # made by one worker for all of them


@pytest.fixture(scope="session")
def blocks() -> codec.LinearCodec:
    """The latent space of the packaged generator."""
    return codec.fit(corpora.pretraining(1000, 77).clips, tiny.CHANNELS)


@pytest.fixture(scope="session")
def through_codec(blocks: codec.LinearCodec) -> Callable[[Tensor], Tensor]:
    return lambda clips: blocks.decode(blocks.encode(clips))


def _scenes(n: int, rng: random.Random) -> list[Scene]:
    return [sample(rng, held_out=index % 4 == 0) for index in range(n)]


@pytest.fixture(scope="session")
def labelled(through_codec: Callable[[Tensor], Tensor]) -> dict[str, Labelled]:
    """Kind -> videos with captions: clean, codec and noise are right; the others are broken, through the codec too."""
    rng = random.Random(20)
    scenes = _scenes(RIGHT, rng)
    captions = [grammar.caption(scene, rng) for scene in scenes]
    clean = render.clips(scenes, rng)
    noise = 0.03 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    wrong = [grammar.caption(mislabel(scene, rng), rng) for scene in scenes[:BROKEN]]
    kinds = {
        "clean": (clean, captions),
        "codec": (through_codec(clean), captions),
        "noise": ((clean + noise).clamp(0, 1), captions),
        "wrong": (clean[:BROKEN], wrong),
    }
    for defect in (*DEFECTS, "cross"):
        broken = _scenes(BROKEN, rng)
        drawing = render.layout(broken, rng)
        for index in range(len(broken)):
            if defect == "cross":
                add_cross(drawing, index, rng)
            else:
                break_clip(drawing, index, defect, rng)
        kinds[defect] = (through_codec(render.draw(drawing)), [grammar.caption(scene, rng) for scene in broken])
    return {kind: (Videos(clips, float(tables.FPS)), texts) for kind, (clips, texts) in kinds.items()}
