"""GRPO-Guard: log-ratios without their one-sided drift, of one width at every step."""

from pydantic import Field

from reelign.core import weighting
from reelign.engines import policy
from reelign.engines.config import WindowConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Losses


class Config(WindowConfig):
    """GRPO-Guard (arXiv 2510.22319)."""

    name: str = "grpo_guard"
    clip: float = Field(default=2e-6, gt=0, le=1e3)
    """Half-width of the trust region; smaller than for plain ratios, because each is multiplied by its step's std."""
    rebalance: bool = True
    """Weigh steps by one over their length, so that short steps are not drowned by long ones."""

    def losses(self) -> Losses:
        """Centred log-ratios with the std of the kernel in use."""
        weight = weighting.per_length if self.rebalance else None
        return policy.losses(log_ratio=policy.centred, step_weight=weight)
