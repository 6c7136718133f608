"""A reward from outside the package: `k` times the mean of all pixels."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from reelign.batches import Request, Videos
from reelign.parts import PartConfig


class Config(PartConfig):
    k: float = 1.0
    limit: float = 100.0
    version: ClassVar = "1"

    @property
    def scores(self) -> dict[str, tuple[float, float]]:
        return {"linear": (-self.limit, self.limit)}


class Linear:
    def __init__(self, config: Config) -> None:
        self.k = config.k

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> dict[str, Tensor]:
        return {"linear": self.k * videos.frames.flatten(1).mean(dim=1)}


def build(config: Config) -> Linear:
    return Linear(config)
