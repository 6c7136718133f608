"""DDRL: a little of the flow-matching loss on real clips beside the rewards, against drifting away from the data."""

from collections.abc import Iterator
from dataclasses import replace

from pydantic import Field

from reelign import declared
from reelign.batches import Loss
from reelign.core import rng
from reelign.engines.slots import Demand, Opened, Slots
from reelign.errors import BadConfig
from reelign.forward_process import LevelConfig, error, levels
from reelign.parts import AnyDataset, PartConfig
from reelign.protocols import VideoModel
from reelign.sampling import chunks, encode


class Config(PartConfig):
    """Data-regularised RL (arXiv 2512.04332): the forward divergence to data, estimated by flow matching."""

    name: str = "ddrl"
    dataset: AnyDataset
    """Clips to stay near to."""
    weight: float = Field(default=0.01, gt=0, le=1e6)
    """Of the loss on clips beside that on rewards."""
    batch: int = Field(default=16, ge=1, le=10**6)
    """Clips of each update."""
    levels: LevelConfig = LevelConfig()


def fill(config: Config, slots: Slots) -> Slots:
    """A flow-matching term on clips."""

    def check(demand: Demand) -> None:
        if "clips" not in declared.gives(config.dataset):
            raise BadConfig(f"modules: ddrl needs clips, but the dataset {config.dataset.name!r} has none.")

    def term(model: VideoModel, seed: int, micro_batch: int, opened: Opened) -> Iterator[Loss]:
        seed = rng.seed_for(seed, "ddrl")
        clips = opened(config.dataset).clips(config.batch, rng.integer(1 << 20, seed=seed), model)
        n = len(clips.requests)
        seeds = [rng.seed_for(seed, i) for i in range(n)]
        sigma = levels(config.levels, [rng.seed_for(s, "level") for s in seeds]).to(model.device)
        noise = rng.normals(seeds, clips.x0.shape[1:]).to(model.device)
        condition = encode(model, clips.requests)
        for cut in chunks(n, micro_batch):
            errors = error(model, clips.x0[cut], noise[cut], sigma[cut], condition[cut])
            value = config.weight * (errors * clips.weight[cut]).sum() / n
            yield Loss(value, len(errors) / n, {"data_error": errors.detach().mean()})

    return replace(slots, terms=(*slots.terms, term), checks=(*slots.checks, check))
