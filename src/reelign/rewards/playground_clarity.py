"""Is every pixel something of this world: a background colour, its stripes, or a sprite's colour?

The other rewards take the nearest colour for the right one, so a tint, a haze or a ghost costs them little; a policy
that only they train drifts there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from reelign.batches import Request, Videos
from reelign.parts import PartConfig
from reelign.playground.detector.detect import detect
from reelign.playground.world.wanted import READS


class Config(PartConfig):
    """How much haze is forgiven."""

    name: str = "playground_clarity"
    scores: ClassVar = {"playground_clarity": (0.0, 1.0)}
    version: ClassVar = "1"
    reads: ClassVar = READS
    half: float = Field(default=0.06, ge=1e-3)
    """Distance from the world's own colours (RGB, rms over the clip) at which the score has fallen to a half."""


@dataclass(frozen=True, slots=True)
class Clarity:
    """One number in (0, 1]."""

    config: Config

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> Mapping[str, Float[Tensor, " b"]]:
        """Score each playground video; requests are not read."""
        square = detect(videos).unlike.square().mean(dim=1)
        return {"playground_clarity": 1 / (1 + square / self.config.half**2)}


build = Clarity
