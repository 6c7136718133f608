"""TempFlow-GRPO: one stochastic branch at a step of its own, weighted by the noise that the step adds."""

from pydantic import Field

from reelign.core import weighting
from reelign.engines import combine, policy, select
from reelign.engines.config import PolicyConfig
from reelign.engines.method import Online
from reelign.engines.slots import Slots, assemble


class Config(PolicyConfig):
    """TempFlow-GRPO (arXiv 2508.04324)."""

    name: str = "tempflow"
    among: int = Field(default=9, ge=1)
    """The branch lies within this many first steps."""


def build(config: Config) -> Online:
    """Branching GRPO with noise-aware weights."""
    slots = Slots(
        select=select.window(config.kind, config.eta, 1, config.among),
        combine=combine.gdpo("group"),
        limit=config.limit,
        clip=config.clip,
    )
    return Online(assemble(slots, config.modules), policy.losses(step_weight=weighting.noise_scale))
