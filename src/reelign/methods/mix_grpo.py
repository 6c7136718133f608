"""MixGRPO: one short window of stochastic steps for all prompts, which moves towards the data as training goes on."""

from pydantic import Field

from reelign.engines import select
from reelign.engines.config import PolicyConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Slots


class Config(PolicyConfig):
    """MixGRPO (arXiv 2507.21802)."""

    name: str = "mix_grpo"
    window: int = Field(default=4, ge=1)
    """Neighbouring stochastic steps."""
    every: int = Field(default=25, ge=1)
    """Iterations after which the window moves on by one step; at the end it starts again."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        return self.usual(select.sliding(self.kind, self.eta, self.window, self.every), "group")
