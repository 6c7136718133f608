"""Where to learn: each sample's advantage shared out over places and times by a map of its own frames."""

from dataclasses import replace

from pydantic import Field

from reelign import parts
from reelign.batches import Scored
from reelign.core import allocation
from reelign.engines.slots import PLACES, Given, Module, Notes, Slots
from reelign.parts import AnyBackbone, PartConfig


class Config(PartConfig):
    """Visual-structure allocation (ViPO, arXiv 2511.18719)."""

    name: str = "vipo"
    backbone: AnyBackbone = Field(
        default_factory=lambda: parts.configure("backbone", "gradients"), validate_default=True
    )
    """Frozen features of the decoded frames: gradients needs no download; dinov2 and videomae read a local folder."""
    components: int = Field(default=3, ge=1)
    """Principal components that make the map."""
    smooth: float = Field(default=1.0, ge=0)
    """Standard deviation of a blur, in patches."""
    mean_one: bool = True
    """Scale each map to mean 1, so that it only moves credit; the paper's maps in [0, 1] also shrink it."""
    clip: float = Field(default=0.1, gt=0)
    """Half-width of the trust region of single places, whose log-ratios vary far more than means."""


def build(config: Config) -> Module:
    """Dense advantages from frozen features."""
    features = None

    def spread(given: Given, scored: Scored, notes: Notes) -> Given:
        nonlocal features
        assert scored.videos is not None
        x0 = scored.trajectories.x0
        if features is None:
            features = parts.build("backbone", config.backbone, x0.device)
        maps = allocation.structure(features(scored.videos), config.components)
        maps = allocation.to_latent(maps, (x0.shape[-3], x0.shape[-2], x0.shape[-1]), config.smooth).to(x0)
        notes.metrics["map_mean"], notes.metrics["map_std"] = maps.mean().item(), maps.std().item()
        if config.mean_one:
            maps = allocation.mean_one(maps)
        return replace(given, advantage=allocation.dense(given.advantage, maps))

    def fill(slots: Slots) -> Slots:
        return replace(
            slots,
            spread=(*slots.spread, spread),
            dense_clip=config.clip,
            needs=slots.needs | {"videos"},
            demands=slots.demands | PLACES,
        )

    return Module("vipo", fill, frozenset({"places"}))
