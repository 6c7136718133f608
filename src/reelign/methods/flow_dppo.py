"""Flow-DPPO: no clip; a sample stops pushing once its exact divergence is too large. Made for several updates."""

from pydantic import Field

from reelign.core import policy_loss
from reelign.engines import policy
from reelign.engines.config import WindowConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Losses


class Config(WindowConfig):
    """Flow-DPPO (arXiv 2606.11025)."""

    name: str = "flow_dppo"
    limit_kl: float = Field(default=1e-5, gt=0)
    """Divergence (mean over elements) from which a sample may not push outwards any more."""

    def losses(self) -> Losses:
        """A mask by the exact divergence in place of a clip."""
        return policy.losses(
            surrogate=lambda log_ratio, credit, clip, divergence: policy_loss.masked(
                log_ratio, credit, divergence(), self.limit_kl
            )
        )
