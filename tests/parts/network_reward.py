"""A reward from outside the package with a network of its own, on a device of its own: it likes what it happens to."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from reelign.batches import Request, Videos
from reelign.parts import PartConfig

BUILT: list["Taste"] = []
"""Every one that was built, for tests to look into."""


class Config(PartConfig):
    scores: ClassVar = {"taste": (0.0, 1.0), "fuss": (0.0, 1.0)}
    version: ClassVar = "1"
    device: str = "cpu"


class Taste:
    def __init__(self, config: Config) -> None:
        self.device = torch.device(config.device)
        self.network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).to(self.device)
        self.saw: set[torch.device] = set()
        BUILT.append(self)

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> dict[str, Tensor]:
        self.saw.add(videos.frames.device)
        colour = videos.frames.mean(dim=(1, 3, 4)).to(self.device)
        taste, fuss = self.network(colour).sigmoid().unbind(dim=1)
        return {"taste": taste, "fuss": fuss}


def build(config: Config) -> Taste:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Taste(config)
