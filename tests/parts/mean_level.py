"""A held-out measure from outside the package: the mean of all pixels."""

from collections.abc import Sequence

from torch import Tensor

from reelign.batches import Videos
from reelign.parts import PartConfig


class Config(PartConfig):
    pass


class MeanLevel:
    higher_is_better = {"level": True}
    description = {"level": "mean of all pixels"}

    def __call__(self, videos: Videos, prompts: Sequence[str]) -> dict[str, Tensor]:
        return {"level": videos.frames.flatten(1).mean(dim=1)}


def build(config: Config) -> MeanLevel:
    return MeanLevel()
