"""The forward process: how well a model denoises given clips at named noise levels and noises."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from reelign.batches import Condition
from reelign.core import flow, rng, schedule
from reelign.parts import Settings
from reelign.protocols import VideoModel


class LevelConfig(Settings):
    """How noise levels are drawn for training."""

    law: Literal["logit_normal", "uniform"] = "logit_normal"
    """logit_normal prefers the middle; uniform takes all levels alike."""
    mean: float = Field(default=0.0, ge=-10, le=10)
    """Of the logit, for logit_normal."""
    std: float = Field(default=1.0, gt=0, le=10)
    """Of the logit, for logit_normal."""
    shift: float = Field(default=1.0, ge=0.01, le=100)
    """Time shift applied to the draws."""
    low: float = Field(default=0.0, ge=0, lt=1)
    """Lowest level that is drawn."""
    high: float = Field(default=1.0, gt=0, le=1)
    """Draws are squeezed into [low, high]; DPO may keep to high noise, where structure is decided."""

    @model_validator(mode="after")
    def _in_order(self) -> "LevelConfig":
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high is {self.high:g}, but low must not be above high")
        return self


def levels(config: LevelConfig, seeds: Sequence[int]) -> Float[Tensor, " b"]:
    """One noise level a seed."""
    if config.law == "uniform":
        base = torch.cat([rng.uniform((1,), seed=s) for s in seeds])
    else:
        base = torch.sigmoid(config.mean + config.std * torch.cat([rng.normal((1,), seed=s) for s in seeds]))
    return config.low + (config.high - config.low) * schedule.shifted(base, config.shift)


def error(
    model: VideoModel,
    x0: Float[Tensor, "b *latent"],
    noise: Float[Tensor, "b *latent"],
    sigma: Float[Tensor, " b"],
    condition: Condition,
) -> Float[Tensor, " b"]:
    """Mean squared velocity error of each sample, `mean |v(x_sigma) - (noise - x0)|^2` (rectified flow matching)."""
    velocity = model.velocity(flow.interpolate(x0, noise, sigma), sigma, condition)
    return flow.velocity_error(velocity, flow.velocity_target(x0, noise))
