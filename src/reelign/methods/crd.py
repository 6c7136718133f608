"""CRD: regress the policy's own implicit rewards, centred in each group, onto the advantages; bounded by design."""

from pydantic import Field
from torch import Tensor

from reelign.core import forward_loss
from reelign.engines import follow, forward
from reelign.engines.config import ForwardConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Losses, Slots


class Config(ForwardConfig):
    """Centred reward distillation (arXiv 2603.14128)."""

    name: str = "crd"
    beta: float = Field(default=50.0, gt=0, le=1e6)
    """Advantage per implicit reward, which is a difference of mean squared errors."""
    shared: bool = False
    """One noise for a group, beside one level. What is learnt then differs by a known factor (docs/methods/crd.md)."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        return self.usual(follow.after(0.25, 0.005, 0.999), checks=(forward.whole_groups_fit,))

    def losses(self) -> Losses:
        """A regression of implicit rewards, centred in their group."""

        def loss(noised: forward.Noised) -> Tensor:
            return forward_loss.crd(*noised.compared(), self.beta).flatten()

        return forward.losses(loss, self.levels, self.draws, shared=self.shared, whole_groups=True)
