"""Flash-GRPO: one stochastic step a prompt, shared by its group, with every step's gradient brought to one scale."""

from pydantic import Field

from reelign.core import weighting
from reelign.engines import combine, policy, select
from reelign.engines.config import Kind, PolicyConfig
from reelign.engines.method import Online
from reelign.engines.slots import Slots, assemble


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


def build(config: Config) -> Online:
    """Iso-temporal one-step GRPO with temporal gradient rectification."""
    slots = Slots(
        select=select.window(config.kind, config.eta, 1, config.among, shared_noise=config.shared_noise),
        combine=combine.gdpo("global"),
        limit=config.limit,
        clip=config.clip,
    )
    return Online(assemble(slots, config.modules), policy.losses(step_weight=weighting.rectified))
