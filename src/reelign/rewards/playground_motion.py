"""Do the sprites move as the prompt says? Direction, speed, wall, fall, and what comes first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from reelign.batches import Request, Videos, texts
from reelign.playground.detector import credit
from reelign.playground.detector.detect import detect
from reelign.playground.detector.lawful import prompted_error
from reelign.playground.world.wanted import Prompted, wanted


class Config(Prompted):
    """How strict the comparison of paths is."""

    name: str = "playground_motion"
    scores: ClassVar = {"playground_motion": (0.0, 1.0)}
    version: ClassVar = "2"
    near: float = Field(default=1.2, ge=1e-3)
    """Distance from the prompted path, in pixels (rms), at which the strict half of the score has fallen to a half."""
    far: float = Field(default=0.5, ge=1e-3)
    """The same for the lenient half, which tells bad from worse, as a share of what the prompted path strays from its
    mean. Standing still where a motion is asked for is off by 1, going the other way by 2."""


@dataclass(frozen=True, slots=True)
class MotionMatch:
    """The mean over prompted sprites of a score that falls with the distance between the seen and the prompted path."""

    config: Config

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> Mapping[str, Float[Tensor, " b"]]:
        """Score each playground video against its prompt; a sprite that is not there scores 0."""
        found, asked, own = detect(videos), wanted(texts(requests)), self.config
        path = credit.of(credit.centers(found), asked.color).flatten(0, 1)
        error, extent = prompted_error(path, asked.motion.flatten(), asked.size.flatten())
        close = (1 / (1 + (error / own.near).square()) + 1 / (1 + (error / extent / own.far).square())) / 2
        close = close.reshape(asked.motion.shape)
        there = credit.of(found.seen.mean(dim=2), asked.color)
        return {"playground_motion": (close * there * asked.asked).sum(dim=1) / asked.asked.sum(dim=1)}


build = MotionMatch
