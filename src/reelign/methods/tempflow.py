"""TempFlow-GRPO: one stochastic branch at a step of its own, weighted by the noise that the step adds."""

from pydantic import Field

from reelign.core import weighting
from reelign.engines import policy, select
from reelign.engines.config import PolicyConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Losses, Slots


class Config(PolicyConfig):
    """TempFlow-GRPO (arXiv 2508.04324)."""

    name: str = "tempflow"
    among: int = Field(default=9, ge=1)
    """The branch lies within this many first steps."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        return self.usual(select.window(self.kind, self.eta, 1, self.among), "group")

    def losses(self) -> Losses:
        """Steps count by the noise that they add."""
        return policy.losses(step_weight=weighting.noise_scale)
