"""Do things move lawfully and stay what they are? Whatever the prompt says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from reelign.batches import Request, Videos
from reelign.parts import PartConfig
from reelign.playground.detector import credit
from reelign.playground.detector.detect import SEEN_AREA, Detections, detect
from reelign.playground.detector.lawful import lawful_error, trust
from reelign.playground.world.wanted import READS

LASTS = 3
"""Frames in which a colour must be seen to be a sprite; where one smears, its outline may pass for a third colour."""


class Config(PartConfig):
    """How much of a defect is forgiven."""

    name: str = "playground_physics"
    scores: ClassVar = {"playground_physics": (0.0, 1.0)}
    version: ClassVar = "2"
    reads: ClassVar = READS
    path: float = Field(default=0.9, ge=1e-3)
    """Distance from the nearest lawful path, in pixels (rms), at which the score for paths has fallen to a half."""
    identity: float = Field(default=0.2, ge=1e-3)
    """The same for the change of area, look or presence, as a share."""
    brightness: float = Field(default=0.2, ge=1e-3)
    """The same for the relative change of a frame's brightness."""
    worst: float = Field(default=0.75, ge=0, le=1)
    """Weight of the worst of the three scores; the rest is their mean, so that mending any of them pays."""


def _half_at(value: Float[Tensor, "*n"], half: float) -> Float[Tensor, "*n"]:
    return 1 / (1 + (value / half).square())


@dataclass(frozen=True, slots=True)
class Physics:
    """Lawful paths, lasting identity, steady brightness: the worst of the three scores, mixed with their mean.

    The sprite that does worst counts; all is scaled by the share of frames in which there is something to judge, so an
    empty clip scores 0.
    """

    config: Config

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> Mapping[str, Float[Tensor, " b"]]:
        """Score each playground video; requests are not read."""
        found, own = detect(videos), self.config
        there = found.seen.topk(LASTS, dim=2).values[..., -1]
        centers = credit.centers(found)
        path, identity = _half_at(_off_path(centers), own.path), _half_at(_changed(found, centers), own.identity)
        sprites = torch.stack([path, identity], dim=-1)
        sprites = torch.lerp(torch.ones_like(sprites), sprites, there[..., None]).amin(dim=1)
        steady = _half_at((found.gain - 1).abs().amax(dim=1), own.brightness)
        parts = torch.cat([sprites, steady[:, None]], dim=1)
        score = torch.lerp(parts.mean(dim=1), parts.amin(dim=1), own.worst)
        return {"playground_physics": score * found.seen.amax(dim=1).mean(dim=1)}


def _off_path(centers: Float[Tensor, "b c f 2"]) -> Float[Tensor, "b c"]:
    """Distance of each colour from its nearest lawful path, pixels."""
    return lawful_error(centers.flatten(0, 1)).unflatten(0, centers.shape[:2])


def _changed(found: Detections, centers: Float[Tensor, "b c f 2"]) -> Float[Tensor, "b c"]:
    """How much each colour changes: in area, in shape (which counts little, for the codec blurs it), in being there."""
    area = found.area.clamp_min(1.0).log()
    typical = area.median(dim=2, keepdim=True).values
    steady = trust(centers)
    grown = ((area - typical).abs() * steady).mean(dim=2)
    missing = ((1 - found.seen) * steady).mean(dim=2)
    overall = credit.shapes(credit.average(found.moments, found.seen))
    looks = (credit.shapes(found.moments) - overall[:, :, None]).abs().sum(dim=-1) / 2
    other = credit.average(looks, found.seen)
    scattered = found.stray.mean(dim=2) / found.area.mean(dim=2).clamp_min(SEEN_AREA[0])
    return grown + other / 4 + missing + scattered


build = Physics
