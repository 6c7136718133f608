"""Flash-GRPO: one stochastic step a prompt, shared by its group, with every step's gradient brought to one scale."""

from pydantic import Field

from reelign.core import weighting
from reelign.engines import policy, select
from reelign.engines.config import Kind, PolicyConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Losses, Slots


class Config(PolicyConfig):
    """Flash-GRPO (arXiv 2605.15980)."""

    name: str = "flash_grpo"
    kind: Kind = "flash"
    eta: float = Field(default=1.0, ge=0.001, le=10)
    """Factor in front of the rate, which is the noise level itself."""
    among: int = Field(default=8, ge=1)
    """The step lies within this many first ones."""
    shared_noise: bool = True
    """One initial noise a group; the paper's code draws one for each sample."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        return self.usual(select.window(self.kind, self.eta, 1, self.among, shared_noise=self.shared_noise))

    def losses(self) -> Losses:
        """Steps' gradients are brought to one scale (temporal gradient rectification)."""
        return policy.losses(step_weight=weighting.rectified)
