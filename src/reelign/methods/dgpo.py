"""DGPO: direct preference optimisation between the better and the worse part of a group, at one level and noise."""

from pydantic import Field
from torch import Tensor

from reelign.core import forward_loss
from reelign.engines import follow, forward
from reelign.engines.config import ForwardConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Losses, Slots


class Config(ForwardConfig):
    """Direct group preference optimisation (arXiv 2510.08425)."""

    name: str = "dgpo"
    beta: float = Field(default=100.0, gt=0, le=1e6)
    """Strength for errors that are means over latent elements."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        return self.usual(follow.after(0.25, 0.005, 0.999), checks=(forward.whole_groups_fit,))

    def losses(self) -> Losses:
        """Group-level DPO against the weights that rolled out."""

        def loss(noised: forward.Noised) -> Tensor:
            return forward_loss.dgpo(*noised.compared(), self.beta).flatten()

        return forward.losses(loss, self.levels, self.draws, shared=True, whole_groups=True)
