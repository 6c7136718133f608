"""Direct preference optimisation on flow-matching errors, winner and loser at one shared noise level and noise."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from pydantic import Field

from reelign.batches import Loss, Pairs
from reelign.core import preference_loss, rng
from reelign.forward_process import LevelConfig, error, levels
from reelign.parts import PartConfig
from reelign.protocols import VideoModel
from reelign.sampling import chunks, encode


class Config(PartConfig):
    """Flow-DPO (arXiv 2311.12908, 2501.13918)."""

    name: str = "dpo"
    consumes: ClassVar = Pairs
    needs: ClassVar = frozenset({"reference"})
    beta: float = Field(default=2000.0, gt=0, le=1e7)
    """Strength for errors that are means over latent elements."""
    levels: LevelConfig = LevelConfig(law="uniform")
    anchor: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of the winners' own flow-matching error, against both likelihoods falling together."""


class Dpo:
    """Prefer the chosen clip of each pair more than the reference does."""

    def __init__(self, config: Config) -> None:
        """Keep the config."""
        self.config = config

    def losses(self, model: VideoModel, batch: Pairs, seed: int, micro_batch: int) -> Iterator[Loss]:
        """One loss a chunk of pairs; both branches of a pair share a forward pass, level and noise."""
        n = len(batch.requests)
        seeds = [rng.seed_for(seed, "dpo", i) for i in range(n)]
        sigma = levels(self.config.levels, [rng.seed_for(s, "level") for s in seeds]).to(model.device)
        noise = rng.normals(seeds, batch.chosen.shape[1:]).to(model.device)
        condition = encode(model, batch.requests)
        for cut in chunks(n, max(1, micro_batch // 2)):
            both = torch.cat([batch.chosen[cut], batch.rejected[cut]])
            twice = torch.arange(n, device=sigma.device)[cut].repeat(2)
            at = noise[twice], sigma[twice], condition[twice]
            with torch.no_grad(), model.reference.on():
                reference_w, reference_l = error(model, both, *at).chunk(2)
            policy_w, policy_l = error(model, both, *at).chunk(2)
            loss = preference_loss.flow_dpo(policy_w, policy_l, reference_w, reference_l, self.config.beta)
            value = (loss + self.config.anchor * policy_w).sum() / n
            with torch.no_grad():
                margin = preference_loss.margin(policy_w, policy_l, reference_w, reference_l, self.config.beta)
                metrics = {
                    "loss": loss.mean(),
                    "margin": margin.mean(),
                    "accuracy": (margin > 0).float().mean(),
                    "winner_error": (policy_w - reference_w).mean(),
                    "loser_error": (policy_l - reference_l).mean(),
                }
            yield Loss(value, len(loss) / n, metrics)


def build(config: Config) -> Dpo:
    """Direct preference optimisation."""
    return Dpo(config)
