"""Another reward, made worse on purpose: noisy, saturating, or both. For studies of what survives a bad reward."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from reelign import judges
from reelign.batches import Request, Videos
from reelign.core import rng
from reelign.parts import AnyReward, PartConfig


class Config(PartConfig):
    """How much worse."""

    name: str = "degraded"
    of: AnyReward = Field(default="playground_motion", validate_default=True)
    """What is made worse; scores keep their names and scale."""
    noise: float = Field(default=0.1, ge=0)
    """Standard deviation of an error that each video has of its own, in units of the scale; the same video always gets
    the same."""
    ceiling: float = Field(default=1.0, gt=0, le=1)
    """Share of the scale above which all scores are alike."""

    @property
    def scores(self) -> Mapping[str, tuple[float, float]]:
        """Those of the reward inside."""
        return self._inner.says.scales

    @property
    def version(self) -> str:
        """What is done to the reward inside, and its own version."""
        return f"degraded-{self.noise:g}-{self.ceiling:g}-{self._inner.says.version}"

    @property
    def reads(self) -> tuple[int, int, int] | None:
        """The videos that the reward inside reads."""
        return self._inner.says.reads

    def check_requests(self, requests: Sequence[Request]) -> None:
        """Refuse what the reward inside refuses.

        Raises:
            BadData: in its words.
        """
        self._inner.check_requests(requests)

    @property
    def _inner(self) -> judges.Named:
        return judges.named("reward", self.of)


class Degraded:
    """Cut at the ceiling, then disturbed, then cut to the scale again."""

    def __init__(self, config: Config) -> None:
        """Build the reward inside."""
        self.inner = judges.build("reward", config.of)
        self.noise, self.ceiling = config.noise, config.ceiling

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> Mapping[str, Float[Tensor, " b"]]:
        """Score as the reward inside does, but worse."""
        scores = {}
        for name, values in self.inner(videos, requests).items():
            low, high = self.inner.says.scales[name]
            cut = values.clamp(max=low + self.ceiling * (high - low))
            error = self.noise * (high - low) * _errors(videos, requests, name).to(values)
            scores[name] = (cut + error).clamp(low, high)
        return scores


def _errors(videos: Videos, requests: Sequence[Request], name: str) -> Float[Tensor, " b"]:
    """Standard Gaussian numbers named by what is seen and asked: pixels (to 8 bits), prompt and score."""
    seen = (videos.frames * 255).round().to(torch.uint8).cpu().numpy()
    found = []
    for clip, request in zip(seen, requests, strict=True):
        digest = hashlib.blake2b(clip.tobytes(), digest_size=8)
        digest.update(f"{name}\n{request.text}".encode())
        found.append(rng.normal((), seed=rng.seed_for(int.from_bytes(digest.digest(), "big") >> 1, "worn")))
    return torch.stack(found)


build = Degraded
