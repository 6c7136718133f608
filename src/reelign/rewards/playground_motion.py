"""Do the sprites move as the prompt says? Direction, speed, wall, fall, and what comes first."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from reelign.batches import Request, Videos, texts
from reelign.parts import PartConfig
from reelign.playground.detector import credit
from reelign.playground.detector.detect import detect
from reelign.playground.detector.lawful import prompted_error
from reelign.playground.world.wanted import READS, wanted


class Config(PartConfig):
    """How strict the comparison of paths is."""

    name: str = "playground_motion"
    scores: ClassVar = {"playground_motion": (0.0, 1.0)}
    version: ClassVar = "2"
    reads: ClassVar = READS
    near: float = Field(default=1.2, ge=1e-3)
    """Distance from the prompted path, in pixels (rms), at which the strict half of the score has fallen to a half."""
    far: float = Field(default=0.5, ge=1e-3)
    """The same for the lenient half, which tells bad from worse, as a share of what the prompted path strays from its
    mean. Standing still where a motion is asked for is off by 1, going the other way by 2."""

    def check_requests(self, requests: Sequence[Request]) -> None:
        """Refuse prompts outside the playground's grammar.

        Raises:
            UnknownCaption: the first of them.
        """
        wanted(texts(requests))


class MotionMatch:
    """The mean over prompted sprites of a score that falls with the distance between the seen and the prompted path."""

    def __init__(self, config: Config) -> None:
        """Keep the tolerances."""
        self.near, self.far = config.near, config.far

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> Mapping[str, Float[Tensor, " b"]]:
        """Score each playground video against its prompt; a sprite that is not there scores 0."""
        found, asked = detect(videos), wanted(texts(requests))
        path = credit.of(credit.centers(found), asked.color).flatten(0, 1)
        error, extent = prompted_error(path, asked.motion.flatten(), asked.size.flatten())
        close = (1 / (1 + (error / self.near).square()) + 1 / (1 + (error / extent / self.far).square())) / 2
        close = close.reshape(asked.motion.shape)
        there = credit.of(found.seen.mean(dim=2), asked.color)
        return {"playground_motion": (close * there * asked.asked).sum(dim=1) / asked.asked.sum(dim=1)}


def build(config: Config) -> MotionMatch:
    """The reward."""
    return MotionMatch(config)
