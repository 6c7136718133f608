"""LongCat-Video's GRPO: one truncated stochastic step, gradients of one scale, the widest group as the unit."""

from pydantic import Field

from reelign.core import weighting
from reelign.engines import penalty, policy, select
from reelign.engines.config import Kind, PolicyConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Losses, Slots


class Config(PolicyConfig):
    """LongCat-Video (arXiv 2510.22200)."""

    name: str = "longcat"
    kind: Kind = "longcat"
    eta: float = Field(default=1.0, ge=0.001, le=10)
    """Factor in front of the flow rate; the step's std is cut at 0.45."""
    among: int = Field(default=6, ge=1)
    """The step lies within this many first ones."""
    kl: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of the mean squared velocity difference to the weights that entered the stage, alike at every level."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        slots = self.usual(select.window(self.kind, self.eta, 1, self.among), "max_group")
        if self.kl:
            slots = penalty.add(slots, "velocity", self.kl)
        return slots

    def losses(self) -> Losses:
        """Steps' gradients are brought to one scale."""
        return policy.losses(step_weight=weighting.rectified)
