"""GRPO on a short window of stochastic steps: a deterministic rollout with one to three noisy steps a prompt.

All members of a group start from one initial noise and are noisy at the same steps (iso-temporal), so their rewards
differ because of exactly the noise that the update credits. Defaults follow what public runs found stable: few noisy
steps in the first half, advantages in units of the batch's spread, no guidance while training.
"""

from typing import Literal

from pydantic import Field

from reelign.engines import penalty, select
from reelign.engines.config import WindowConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Slots


class Config(WindowConfig):
    """Flow-GRPO (arXiv 2505.05470) with a shared stochastic window (MixGRPO 2507.21802, Flash-GRPO 2605.15980)."""

    name: str = "grpo"
    shared_noise: bool = True
    """One initial noise a group; its deterministic steps before the window then run once."""
    tail: int | None = Field(default=None, ge=1, le=1000)
    """Deterministic steps after the window, at most; None takes all that the sampler has left."""
    scale: Literal["group", "global", "max_group"] = "global"
    """Whose spread is the unit of an advantage."""
    kl: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of the exact step divergence to the weights that entered the stage (mean over elements)."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        slots = self.usual(
            select.window(self.kind, self.eta, self.window, self.among, shared_noise=self.shared_noise, tail=self.tail),
            self.scale,
        )
        if self.kl:
            slots = penalty.add(slots, "step", self.kl)
        return slots
