"""MixGRPO: one short window of stochastic steps for all prompts, which moves towards the data as training goes on."""

from pydantic import Field

from reelign.engines import combine, policy, select
from reelign.engines.config import PolicyConfig
from reelign.engines.method import Online
from reelign.engines.slots import Slots, assemble


class Config(PolicyConfig):
    """MixGRPO (arXiv 2507.21802)."""

    name: str = "mix_grpo"
    window: int = Field(default=4, ge=1)
    """Neighbouring stochastic steps."""
    every: int = Field(default=25, ge=1)
    """Iterations after which the window moves on by one step; at the end it starts again."""


def build(config: Config) -> Online:
    """GRPO on a progressive window."""
    slots = Slots(
        select=select.sliding(config.kind, config.eta, config.window, config.every),
        combine=combine.gdpo("group"),
        limit=config.limit,
        clip=config.clip,
    )
    return Online(assemble(slots, config.modules), policy.losses())
