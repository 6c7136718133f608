"""PCPO: a hinge on log-ratios in place of a clip on ratios, and credit in proportion to the length of a step."""

from reelign.core import policy_loss, weighting
from reelign.engines import policy
from reelign.engines.config import WindowConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Losses


class Config(WindowConfig):
    """PCPO (arXiv 2509.25774)."""

    name: str = "pcpo"

    def losses(self) -> Losses:
        """A hinge whose margin is `clip`, and credit in proportion to a step's length."""
        return policy.losses(
            surrogate=lambda log_ratio, credit, clip, divergence: policy_loss.hinge(log_ratio, credit, clip),
            step_weight=weighting.proportional,
        )
