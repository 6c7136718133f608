"""A held-out measure from outside the package: the mean of all pixels."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from reelign.batches import Request, Videos
from reelign.parts import PartConfig


class Config(PartConfig):
    higher_is_better: ClassVar = {"level": True}
    description: ClassVar = {"level": "mean of all pixels"}


class MeanLevel:
    def __call__(self, videos: Videos, requests: Sequence[Request]) -> dict[str, Tensor]:
        return {"level": videos.frames.flatten(1).mean(dim=1)}


def build(config: Config) -> MeanLevel:
    return MeanLevel()
