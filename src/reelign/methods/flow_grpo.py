"""Flow-GRPO: every step but the last is stochastic, and all of them train. The baseline, and the dearest."""

from typing import Literal

from pydantic import Field

from reelign.engines import penalty, select
from reelign.engines.config import PolicyConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Slots


class Config(PolicyConfig):
    """Flow-GRPO (arXiv 2505.05470)."""

    name: str = "flow_grpo"
    kl: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of the exact step divergence to the weights that entered the stage (mean over elements)."""
    scale: Literal["group", "global", "max_group"] = "global"
    """Whose spread is the unit of an advantage; the authors' default is that of the whole batch."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        slots = self.usual(select.everywhere(self.kind, self.eta), self.scale)
        if self.kl:
            slots = penalty.add(slots, "step", self.kl)
        return slots
