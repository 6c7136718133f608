"""Does the clip show what the prompt names? Colour, shape, size, number of sprites, background and camera."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.batches import Request, Videos, texts
from reelign.playground.detector import credit
from reelign.playground.detector.detect import COLORS, detect
from reelign.playground.world import tables
from reelign.playground.world.wanted import Prompted, wanted

EXTRA = 0.5 * (2 * tables.RADII["small"] ** 2)
"""Pixels that nobody asked for which halve the score for having no such: half of the smallest sprite."""


class Config(Prompted):
    """Nothing to set."""

    name: str = "playground_attributes"
    scores: ClassVar = {"playground_attributes": (0.0, 1.0)}
    version: ClassVar = "2"


@dataclass(frozen=True, slots=True)
class Attributes:
    """One number: the mean over the prompted attributes of how well each is met, each in [0, 1].

    A sprite of the wrong colour has no right shape or size either; that there are no sprites nobody asked for counts as
    one attribute, as far as the prompted ones are there: an empty clip gets nothing for being empty.
    """

    config: Config

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> Mapping[str, Float[Tensor, " b"]]:
        """Score each playground video against its prompt."""
        found, asked = detect(videos), wanted(texts(requests))
        rows = torch.arange(len(requests))
        there = found.seen.mean(dim=2)
        shape = credit.shapes(credit.average(found.moments, found.seen))
        size = credit.sizes(credit.average(found.area, found.seen))
        color_met = credit.of(there, asked.color)
        shape_met = color_met * credit.of(shape, asked.color).gather(2, asked.shape[..., None])[..., 0]
        size_met = color_met * credit.of(size, asked.color).gather(2, asked.size[..., None])[..., 0]
        prompted = (torch.nn.functional.one_hot(asked.color, COLORS) * asked.asked[..., None]).amax(dim=1)
        extra = (found.area * (1 - prompted)[..., None] + found.stray).sum(dim=1).mean(dim=1)
        met = (color_met * asked.asked).sum(dim=1) / asked.asked.sum(dim=1)
        alone = met / (1 + (extra / EXTRA).square())
        background = credit.backgrounds(found)[rows, asked.background]
        camera = credit.cameras(found)[rows, asked.camera]
        sprites = ((color_met + shape_met + size_met) * asked.asked).sum(dim=1)
        total = sprites + alone + background + camera
        return {"playground_attributes": total / (3 * asked.asked.sum(dim=1) + 3)}


build = Attributes
