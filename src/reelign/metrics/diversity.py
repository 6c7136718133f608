"""How different are the videos that one prompt gives?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from reelign.batches import Request, Videos
from reelign.parts import PartConfig


class Config(PartConfig):
    """The space in which videos are compared."""

    name: str = "diversity"
    higher_is_better: ClassVar = {"diversity": True}
    description: ClassVar = {
        "diversity": "mean distance to the other videos of the same prompt, rms of downsampled RGB in [0, 1]"
    }
    version: ClassVar = "1"
    side: int = Field(default=16, ge=1)
    """Videos are averaged down to at most this many pixels a side, so that details and noise do not count."""
    frames: int = Field(default=8, ge=1)
    """The same for time."""


@dataclass(frozen=True, slots=True)
class Diversity:
    """Root-mean-square difference of blurred, downsampled videos, averaged over the other videos of the same prompt."""

    config: Config

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> Mapping[str, Float[Tensor, " b"]]:
        """Give each video its share; NaN where no other video has its prompt. Videos may have any size and length."""
        clips = videos.frames.detach().to("cpu", torch.float32).transpose(1, 2)
        _, _, f, height, width = clips.shape
        side, frames = self.config.side, self.config.frames
        size = (min(f, frames), min(height, side), min(width, side))
        small = F.adaptive_avg_pool3d(clips, size).flatten(1)
        # Group by group, for one prompt's videos are few and all pairs of an evaluation are many.
        asked = [(request.text, *sorted(request.given.items())) for request in requests]
        numbers = {one: n for n, one in enumerate(dict.fromkeys(asked))}
        group = torch.tensor([numbers[one] for one in asked])
        share = torch.full((len(asked),), torch.nan)
        for number in range(len(numbers)):
            members = (group == number).nonzero()[:, 0]
            if len(members) > 1:
                apart = torch.cdist(small[members], small[members], compute_mode="donot_use_mm_for_euclid_dist")
                share[members] = apart.sum(dim=1) / (len(members) - 1) / small.shape[1] ** 0.5
        return {"diversity": share}


build = Diversity
