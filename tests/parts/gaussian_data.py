"""A data set from outside the package: clips N(mean, var), and pairs whose chosen clip has the larger mean."""

import math
from typing import ClassVar

import torch

from reelign.batches import Clips, Pairs, Prompts, Request, requests
from reelign.core import rng
from reelign.parts import PartConfig
from reelign.protocols import Geometry, VideoModel


class Config(PartConfig):
    gives: ClassVar = frozenset({"prompts", "clips", "pairs"})
    mean: float = 0.0
    var: float = 1.0
    size: int = 8
    what: str = "prompt"


class GaussianData:
    def __init__(self, config: Config) -> None:
        self.config = config
        parity = ("even", "odd")
        self._all = Prompts(
            tuple(Request(f"{config.what} {i}", i, slices={"parity": parity[i % 2]}) for i in range(config.size))
        )

    def fit(self, geometry: Geometry) -> None:
        pass

    def identity(self) -> dict[str, str | int]:
        return {"size": self.config.size}

    def all_prompts(self) -> Prompts:
        return self._all

    def prompts(self, n: int, group: int, seed: int) -> Prompts:
        chosen = [(seed * n + i) % self.config.size for i in range(n)]
        return Prompts(tuple(self._all.requests[i] for i in chosen), group)

    def _draw(self, n: int, seed: int, model: VideoModel, what: str) -> torch.Tensor:
        seeds = [rng.seed_for(seed, what, i) for i in range(n)]
        return self.config.mean + math.sqrt(self.config.var) * rng.normals(seeds, model.geometry.latent)

    def clips(self, n: int, seed: int, model: VideoModel) -> Clips:
        x0 = self._draw(n, seed, model, "clips")
        return Clips(x0, requests(f"clip {i}" for i in range(n)), torch.ones(n))

    def pairs(self, n: int, seed: int, model: VideoModel) -> Pairs:
        both = torch.stack([self._draw(n, seed, model, "first"), self._draw(n, seed, model, "second")])
        order = both.flatten(2).mean(dim=2).argmax(dim=0)
        rows = torch.arange(n)
        return Pairs(both[order, rows], both[1 - order, rows], requests(f"pair {i}" for i in range(n)))


def build(config: Config) -> GaussianData:
    return GaussianData(config)
