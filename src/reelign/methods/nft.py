"""DiffusionNFT: better samples pull the velocity towards them, worse ones push it away, by one implicit policy each."""

from pydantic import Field
from torch import Tensor

from reelign.core import forward_loss
from reelign.engines import follow, forward
from reelign.engines.config import ForwardConfig
from reelign.engines.method import Online
from reelign.engines.slots import Slots


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


def build(config: Config) -> Online:
    """Negative-aware fine-tuning on the forward process."""

    def loss(noised: forward.Noised) -> Tensor:
        chance = forward_loss.probability(noised.advantage, config.limit)
        sigma = noised.sigma if config.normalise else None
        return forward_loss.nft(noised.velocity, noised.sampled, noised.target, chance, config.beta, sigma=sigma)

    return Online(config.filled(), forward.losses(loss, config.levels, config.draws))
