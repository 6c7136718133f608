"""AWM: advantage-weighted matching, with a pull to the weights that rolled out that makes its optimum exist."""

from pydantic import Field
from torch import Tensor

from reelign.core import advantage, forward_loss
from reelign.engines import follow, forward
from reelign.engines.config import ForwardConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Losses, Slots


class Config(ForwardConfig):
    """Advantage-weighted matching (arXiv 2509.25050)."""

    name: str = "awm"
    beta: float = Field(default=1.5, gt=0, le=1e6)
    """Weight of the anchor; above limit, or there is no optimum."""
    limit: float = Field(default=1.0, ge=0.01, le=1e4)
    """Advantages are cut to [-limit, limit]."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        return self.usual(follow.after(0.0, 0.001, 0.5), checks=(forward.anchored(self.beta, self.limit),))

    def losses(self) -> Losses:
        """Errors weighted by advantages, with an anchor."""

        def loss(noised: forward.Noised) -> Tensor:
            # Modules may have lifted advantages over the limit, beyond which the anchor does not hold them.
            credit = advantage.clamp(noised.advantage, self.limit)
            return forward_loss.anchored(noised.velocity, noised.sampled, noised.target, credit, self.beta)

        return forward.losses(loss, self.levels, self.draws)
