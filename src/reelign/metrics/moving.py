"""Held-out measures for any video: is there motion, and does no frame flicker? Needs no weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from reelign.batches import Request, Videos
from reelign.parts import PartConfig


class Config(PartConfig):
    """What counts as motion and as flicker."""

    name: str = "moving"
    higher_is_better: ClassVar = {"changed_area": True, "flicker_free_share": True}
    description: ClassVar = {
        "changed_area": "share of pixels that change over time",
        "flicker_free_share": "share of clips without a frame much darker or brighter than the median one",
    }
    version: ClassVar = "1"
    change: float = 0.05
    """Spread over time (standard deviation of grey in [0, 1]) from which on a pixel has changed."""
    flicker: float = 0.15
    """Relative distance of a frame's brightness from the clip's median, from which on it flickers."""


@dataclass(frozen=True, slots=True)
class Moving:
    """How much of the picture moves, and which clips have no flickering frame."""

    config: Config

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> Mapping[str, Float[Tensor, " b"]]:
        """Measure each video; requests are not read."""
        grey = videos.frames.float().mean(dim=2)
        changed = grey.std(dim=1, correction=0) > self.config.change
        level = grey.mean(dim=(2, 3))
        typical = level.median(dim=1, keepdim=True).values.clamp_min(1e-3)
        calm = (level / typical - 1).abs().amax(dim=1) < self.config.flicker
        return {
            "changed_area": changed.float().mean(dim=(1, 2)),
            "flicker_free_share": calm.float(),
        }


build = Moving
