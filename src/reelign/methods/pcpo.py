"""PCPO: a hinge on log-ratios in place of a clip on ratios, and credit in proportion to the length of a step."""

from reelign.core import policy_loss, weighting
from reelign.engines import policy
from reelign.engines.config import WindowConfig
from reelign.engines.method import Online


class Config(WindowConfig):
    """PCPO (arXiv 2509.25774)."""

    name: str = "pcpo"


def build(config: Config) -> Online:
    """Proportionate-credit policy optimisation; `clip` is the hinge's margin."""
    losses = policy.losses(
        surrogate=lambda log_ratio, credit, clip, divergence: policy_loss.hinge(log_ratio, credit, clip),
        step_weight=weighting.proportional,
    )
    return Online(config.filled(), losses)
