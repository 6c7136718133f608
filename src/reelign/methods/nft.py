"""DiffusionNFT: better samples pull the velocity towards them, worse ones push it away, by one implicit policy each."""

from pydantic import Field
from torch import Tensor

from reelign.core import forward_loss
from reelign.engines import follow, forward
from reelign.engines.config import ForwardConfig
from reelign.engines.method import build as build
from reelign.engines.slots import Losses, Slots


class Config(ForwardConfig):
    """DiffusionNFT (arXiv 2509.16117)."""

    name: str = "nft"
    beta: float = Field(default=1.0, ge=0.001, le=1e3)
    """How far the implicit policies lie from the weights that rolled out; smaller moves further."""
    limit: float = Field(default=5.0, ge=0.01, le=1e4)
    """Advantages from -limit to limit become probabilities from 0 to 1."""
    normalise: bool = True
    """Divide each branch by its own mean error (the authors' form), instead of the plain mean square."""

    def slots(self) -> Slots:
        """Those that the method fills."""
        return self.usual(follow.after(0.0, 0.001, 0.5))

    def losses(self) -> Losses:
        """A good and a bad implicit policy of each sample (negative-aware fine-tuning)."""

        def loss(noised: forward.Noised) -> Tensor:
            chance = forward_loss.probability(noised.advantage, self.limit)
            sigma = noised.sigma if self.normalise else None
            return forward_loss.nft(noised.velocity, noised.sampled, noised.target, chance, self.beta, sigma=sigma)

        return forward.losses(loss, self.levels, self.draws)
