"""DanceGRPO: a constant noise rate everywhere, one initial noise a prompt, and the best and worst of a larger group."""

from dataclasses import replace

from pydantic import Field

from reelign.engines import allocate, select
from reelign.engines.config import Kind, PolicyConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Slots


class Config(PolicyConfig):
    """DanceGRPO (arXiv 2505.07818)."""

    name: str = "dance_grpo"
    kind: Kind = "dance"
    eta: float = Field(default=0.3, ge=0.001, le=10)
    """Strength of the noise, the same at every level; the paper uses 0.25 to 0.3."""
    fraction: float = Field(default=0.6, gt=0, le=1)
    """Share of the stochastic steps that train, drawn anew for each rollout."""
    keep: int | None = Field(default=None, ge=2)
    """Members of each group that train, half of them the best and half the worst; None keeps all."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        slots = self.usual(select.everywhere(self.kind, self.eta, self.fraction, shared_noise=True), "group")
        if self.keep is not None:
            checks = (*slots.checks, allocate.extremes_fit(self.keep))
            slots = replace(slots, allocate=(allocate.extremes(self.keep),), checks=checks)
        return slots
