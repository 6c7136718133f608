"""Supervised fine-tuning: the flow-matching loss on captioned clips."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field

from reelign.batches import Clips, Loss
from reelign.core import rng
from reelign.forward_process import LevelConfig, error, levels
from reelign.parts import PartConfig
from reelign.protocols import VideoModel
from reelign.sampling import chunks, encode


class Config(PartConfig):
    """Flow matching on clips: mean over samples of weight * |v - (noise - x0)|^2."""

    name: str = "sft"
    consumes: ClassVar = Clips
    levels: LevelConfig = LevelConfig()
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of captions replaced by the empty prompt, so that guidance keeps working."""


class Sft:
    """Denoise good clips."""

    def __init__(self, config: Config) -> None:
        """Keep the config."""
        self.config = config

    def losses(self, model: VideoModel, batch: Clips, seed: int, micro_batch: int) -> Iterator[Loss]:
        """Velocity errors at named levels and noises; a sample's noise does not depend on its neighbours."""
        n = len(batch.requests)
        seeds = [rng.seed_for(seed, "sft", i) for i in range(n)]
        sigma = levels(self.config.levels, [rng.seed_for(s, "level") for s in seeds]).to(model.device)
        dropped = (
            torch.stack([rng.uniform((), seed=rng.seed_for(s, "drop")) for s in seeds]) < self.config.caption_dropout
        )
        pairs = zip(batch.requests, dropped.tolist(), strict=True)
        condition = encode(model, [replace(request, text="") if drop else request for request, drop in pairs])
        noise = rng.normals(seeds, batch.x0.shape[1:]).to(model.device)
        for cut in chunks(n, micro_batch):
            errors = error(model, batch.x0[cut], noise[cut], sigma[cut], condition[cut])
            value = (errors * batch.weight[cut]).sum() / n
            yield Loss(value, len(errors) / n, {"loss": errors.detach().mean()})


def build(config: Config) -> Sft:
    """Supervised fine-tuning."""
    return Sft(config)
