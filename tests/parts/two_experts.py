"""A model family from outside with two networks: one above a noise level, one below it; its card says where."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from reelign.batches import Condition
from reelign.models import gaussian
from reelign.protocols import Card
from reelign.weights import Reference

check = gaussian.check


class Config(gaussian.Config):
    name: str = "tests.parts.two_experts"
    boundary: float = 0.8


class TwoExperts(gaussian.Gaussian):
    def __init__(self, config: Config, device: torch.device) -> None:
        super().__init__(config, device)
        self.boundary = config.boundary
        self.experts = {name: gaussian.Offsets(config, self.geometry.latent).to(device) for name in ("high", "low")}
        self.network = nn.ModuleDict(self.experts)
        self.reference = Reference(self.experts)

    def velocity(self, x: Tensor, sigma: Tensor, condition: Condition, guidance: float = 1.0) -> Tensor:
        high, found = sigma >= self.boundary, torch.zeros_like(x)
        for name, rows in (("high", high), ("low", ~high)):
            if rows.any():
                found[rows] = self.reference.call(x[rows], sigma[rows], expert=name)
        return found


def describe(config: Config) -> Card:
    return replace(gaussian.describe(config), experts=("high", "low"), boundary=config.boundary)


def build(config: Config, device: torch.device) -> TwoExperts:
    return TwoExperts(config, device)
