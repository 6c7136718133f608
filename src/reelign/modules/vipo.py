"""Where to learn: each sample's advantage shared out over places and times by a map of its own frames."""

from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from reelign import parts
from reelign.core import allocation
from reelign.engines import allocate
from reelign.engines.slots import Glance, Notes, Slots
from reelign.parts import AnyBackbone, PartConfig


class Config(PartConfig):
    """Visual-structure allocation (ViPO, arXiv 2511.18719)."""

    name: str = "vipo"
    replaces: ClassVar = frozenset({"places"})
    backbone: AnyBackbone = Field(
        default_factory=lambda: parts.configure("backbone", "gradients"), validate_default=True
    )
    """Frozen features of the decoded frames: gradients needs no download; dinov2 and videomae read a local folder."""
    components: int = Field(default=3, ge=1)
    """Principal components that make the map."""
    smooth: float = Field(default=1.0, ge=0, le=16)
    """Standard deviation of a blur, in patches."""
    mean_one: bool = True
    """Scale each map to mean 1, so that it only moves credit; the paper's maps in [0, 1] also shrink it."""
    clip: float = Field(default=0.1, gt=0, le=1e3)
    """Half-width of the trust region of single places, whose log-ratios vary far more than means."""


def fill(config: Config, slots: Slots) -> Slots:
    """Dense advantages from frozen features."""
    features = None

    def seen(glance: Glance) -> Float[Tensor, "b f h w"]:
        nonlocal features
        x0 = glance.x0
        if features is None:
            features = parts.build("backbone", config.backbone, x0.device)
        found = allocation.structure(features(glance.videos), config.components)
        return allocation.to_latent(found, (x0.shape[-3], x0.shape[-2], x0.shape[-1]), config.smooth).to(x0)

    def maps(found: Float[Tensor, "b f h w"], notes: Notes) -> Float[Tensor, "b f h w"]:
        notes.metrics["map_mean"], notes.metrics["map_std"] = found.mean().item(), found.std().item()
        return allocation.mean_one(found) if config.mean_one else found

    return allocate.placed(slots, seen, maps, config.clip)
