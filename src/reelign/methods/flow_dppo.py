"""Flow-DPPO: no clip; a sample stops pushing once its exact divergence is too large. Made for several updates."""

from pydantic import Field

from reelign.core import policy_loss
from reelign.engines import combine, policy, select
from reelign.engines.config import WindowConfig
from reelign.engines.method import Online
from reelign.engines.slots import Slots


class Config(WindowConfig):
    """Flow-DPPO (arXiv 2606.11025)."""

    name: str = "flow_dppo"
    limit_kl: float = Field(default=1e-5, gt=0)
    """Divergence (mean over elements) from which a sample may not push outwards any more."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        return Slots(
            select=select.window(self.kind, self.eta, self.window, self.among),
            combine=combine.gdpo("global"),
            limit=self.limit,
            clip=self.clip,
        )


def build(config: Config) -> Online:
    """GRPO with an exact-divergence mask."""
    losses = policy.losses(
        surrogate=lambda log_ratio, credit, clip, divergence: policy_loss.masked(
            log_ratio, credit, divergence(), config.limit_kl
        )
    )
    return Online(config.filled(), losses)
