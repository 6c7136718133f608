"""A data set from outside with clips of two sizes; each draw is of one of them."""

from pathlib import Path
from typing import ClassVar

import torch

from reelign.batches import Clips, Pairs, Prompts, Request
from reelign.core import rng
from reelign.parts import PartConfig
from reelign.protocols import Geometry, VideoModel

SIZES = ((3, 4, 4), (3, 4, 8))


class Config(PartConfig):
    name: str = "tests.parts.sized_data"
    gives: ClassVar = frozenset({"clips", "prompts"})
    first_frame: str

    def asked(self, n: int, size: tuple[int, int, int]) -> tuple[Request, ...]:
        given = {"first_frame": Path(self.first_frame)}
        return tuple(Request(f"clip {i}", i, given=given, size=size) for i in range(n))


class SizedData:
    def __init__(self, config: Config) -> None:
        self.config = config

    def fit(self, geometry: Geometry) -> None:
        pass

    def identity(self) -> dict[str, str | int]:
        return {"sizes": str(SIZES)}

    def all_prompts(self) -> Prompts:
        return Prompts(self.config.asked(4, SIZES[0]))

    def prompts(self, n: int, group: int, seed: int) -> Prompts:
        return Prompts(self.config.asked(n, SIZES[0]), group)

    def clips(self, n: int, seed: int, model: VideoModel) -> Clips:
        size = SIZES[seed % 2]
        latent = model.sized(size).latent
        x0 = rng.normals([rng.seed_for(seed, "clip", i) for i in range(n)], latent)
        return Clips(x0, self.config.asked(n, size), torch.ones(n))

    def pairs(self, n: int, seed: int, model: VideoModel) -> Pairs:
        raise NotImplementedError


def build(config: Config) -> SizedData:
    return SizedData(config)
