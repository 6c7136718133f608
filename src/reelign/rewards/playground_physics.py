"""Do things move lawfully and stay what they are? Whatever the prompt says."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.batches import Videos
from reelign.parts import PartConfig
from reelign.playground import credit
from reelign.playground.detect import Detections, detect
from reelign.playground.lawful import lawful_error


class Config(PartConfig):
    """How much of a defect is forgiven."""

    name: str = "playground_physics"
    rms: float = 1.4
    """Distance from the nearest lawful path, in pixels (rms), that halves the score."""
    largest: float = 3.2
    """The same for the largest distance in any frame."""
    identity: float = 0.3
    """Relative change of area, or share of frames with another look, that halves the score."""
    brightness: float = 0.2
    """Relative change of a frame's brightness that halves the score."""


def _half_at(value: Float[Tensor, "*n"], half: float) -> Float[Tensor, "*n"]:
    return 1 / (1 + (value / half).square())


class Physics:
    """The product of scores in [0, 1]: lawful paths, lasting identity, steady brightness; 0 where nothing is seen."""

    range = (0.0, 1.0)
    version = "1"

    def __init__(self, config: Config) -> None:
        """Keep the tolerances."""
        self.config = config

    def __call__(self, videos: Videos, prompts: Sequence[str]) -> Mapping[str, Float[Tensor, " b"]]:
        """Score each playground video; prompts are not read."""
        found = detect(videos)
        there = found.seen.amax(dim=2)
        path, lasting = self._path(found), self._identity(found)
        worst = torch.lerp(torch.ones_like(there), path * lasting, there).amin(dim=1)
        flicker = (found.gain - 1).abs().amax(dim=1)
        return {"playground_physics": worst * there.amax(dim=1) * _half_at(flicker, self.config.brightness)}

    def _path(self, found: Detections) -> Float[Tensor, "b c"]:
        rms, largest = lawful_error(credit.centers(found).flatten(0, 1))
        score = _half_at(rms, self.config.rms) * _half_at(largest, self.config.largest)
        return score.reshape(found.area.shape[:2])

    def _identity(self, found: Detections) -> Float[Tensor, "b c"]:
        """Seen in every frame, with one area and one shape."""
        area = found.area.clamp_min(1.0).log()
        typical = area.median(dim=2, keepdim=True).values
        changed = (area - typical).abs().mean(dim=2)
        overall = credit.shapes(credit.average(found.moments, found.seen))
        looks = credit.shapes(found.moments)
        other = (looks - overall[:, :, None]).abs().sum(dim=-1).mean(dim=2) / 2
        missing = 1 - found.seen.mean(dim=2)
        return _half_at(changed + other / 2 + missing, self.config.identity)


def build(config: Config) -> Physics:
    """The reward."""
    return Physics(config)
