"""A reward for any video: things move, and the brightness does not jump. Needs no weights, so every recipe can run.

It is a stand-in. It knows nothing about the prompt, and camera shake pleases it; put a learned video reward in its
place for work that matters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from reelign.batches import Request, Videos
from reelign.parts import PartConfig


class Config(PartConfig):
    """Where the two halves of the score stand at one half."""

    name: str = "steady_motion"
    scores: ClassVar = {"steady_motion": (0.0, 1.0)}
    version: ClassVar = "1"
    motion: float = Field(default=0.02, gt=0)
    """Change between neighbouring frames, rms of RGB in [0, 1] at 32 x 32 pixels."""
    jump: float = Field(default=0.04, gt=0)
    """Largest change of mean brightness between neighbouring frames."""


@dataclass(frozen=True, slots=True)
class SteadyMotion:
    """Product of a saturating amount of motion and a falling score of brightness jumps."""

    config: Config

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> Mapping[str, Float[Tensor, " b"]]:
        """Score each video; requests are not read. A video of one frame has no motion and scores 0."""
        frames = videos.frames.float()
        if frames.shape[1] < 2:
            return {"steady_motion": frames.new_zeros(len(frames))}
        small = functional.adaptive_avg_pool2d(frames.flatten(0, 1), 32).unflatten(0, frames.shape[:2])
        level = small.mean(dim=(2, 3, 4))
        # Without its mean, a frame that only brightens does not count as moving.
        moved = (small - level[:, :, None, None, None]).diff(dim=1).square().mean(dim=(2, 3, 4)).sqrt().mean(dim=1)
        jump = level.diff(dim=1).abs().amax(dim=1)
        return {"steady_motion": moved / (moved + self.config.motion) / (1 + (jump / self.config.jump).square())}


build = SteadyMotion
