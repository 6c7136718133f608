"""TempFlow-GRPO: one stochastic branch at a step of its own, weighted by the noise that the step adds."""

from pydantic import Field

from reelign.core import weighting
from reelign.engines import policy, select
from reelign.engines.config import PolicyConfig
from reelign.engines.method import Online
from reelign.engines.slots import Slots


class Config(PolicyConfig):
    """TempFlow-GRPO (arXiv 2508.04324)."""

    name: str = "tempflow"
    among: int = Field(default=9, ge=1)
    """The branch lies within this many first steps."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        return self.usual(select.window(self.kind, self.eta, 1, self.among), "group")


def build(config: Config) -> Online:
    """Branching GRPO with noise-aware weights."""
    return Online(config.filled(), policy.losses(step_weight=weighting.noise_scale))
