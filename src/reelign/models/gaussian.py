"""Gaussian data in closed form: a model whose velocity, policy gradients and optima are known exactly."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from reelign.batches import Condition, Geometry, Request, Size, Videos
from reelign.core import flow, gaussian, schedule
from reelign.errors import BadData
from reelign.files import usual_mode
from reelign.parts import PartConfig
from reelign.protocols import Card, SamplerConfig
from reelign.weights import Reference


class Config(PartConfig):
    """Data N(mean, var) in every element of a latent [3, 1, h, w]."""

    name: str = "gaussian"
    mean: float = Field(default=0.0, ge=-1e3, le=1e3)
    """Of the data, in every element."""
    var: float = Field(default=1.0, ge=1e-6, le=1e6)
    """Of the data, in every element."""
    side: int = Field(default=1, ge=1, le=1024)
    """Height and width of the latent and of its one-frame video."""
    bins: int = Field(default=1, ge=1, le=1000)
    """Noise levels with an offset of their own, equal parts of [0, 1]."""


class Offsets(nn.Module):
    """The exact velocity plus two learnable families: `offset` per noise-level bin, `shift` of the data's mean."""

    def __init__(self, config: Config, dim: tuple[int, ...]) -> None:
        super().__init__()
        self.mean, self.var, self.bins = config.mean, config.var, config.bins
        self.offset = nn.Parameter(torch.zeros(config.bins, *dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Velocity of N(mean + var * shift, var), plus the offset of the bin that holds sigma."""
        level = flow.expand_to(sigma, x)
        spread = flow.expand_to(gaussian.marginal_var(sigma, self.var), x)
        index = (sigma * self.bins).long().clamp(max=self.bins - 1)
        exact = gaussian.velocity(x, sigma, self.mean, self.var)
        return exact - level * self.var * self.shift / spread + self.offset[index]


class Gaussian:
    """The family's model. Owns its offsets; only an optimizer changes them."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self.geometry = describe(config).geometry
        self.network = Offsets(config, self.geometry.latent).to(device)
        self.experts = {"": self.network}
        self.reference = Reference(self.experts)

    @property
    def identity(self) -> str:
        """A digest of the settings, which are the whole base."""
        return hashlib.sha256(self.config.model_dump_json().encode()).hexdigest()

    def sized(self, size: Size) -> Geometry:
        """One frame of another height and width.

        Raises:
            BadData: more than one frame, or another side than the offsets have.
        """
        own = self.geometry
        if size != (own.frames, own.height, own.width):
            raise BadData(
                f"a video of {size[0]} frames of {size[1]} x {size[2]} is asked for, but the model makes "
                f"{own.frames} of {own.height} x {own.width}; leave the size out."
            )
        return own

    def encode(self, requests: Sequence[Request], geometry: Geometry | None = None) -> Condition:
        """Prompts mean nothing here: the same nothing for all."""
        return Condition(geometry or self.geometry, {"text": (torch.zeros(0),) * len(requests)})

    def levels(self, sampler: SamplerConfig, geometry: Geometry) -> Float[Tensor, " levels"]:
        """A table of one shift."""
        return schedule.sigmas(sampler.steps, sampler.shift)

    def velocity(
        self,
        x: Float[Tensor, "b *latent"],
        sigma: Float[Tensor, " b"],
        condition: Condition,
        guidance: float = 1.0,
    ) -> Float[Tensor, "b *latent"]:
        """The exact velocity plus the learnt offsets."""
        return self.reference.call(x, sigma)

    def decode(self, x0: Float[Tensor, "b *latent"], condition: Condition) -> Videos:
        """The latent itself as a one-frame video, not clamped: linear rewards stay linear."""
        return Videos(x0.transpose(1, 2).clone(), self.geometry.fps)

    def encode_video(self, videos: Videos, condition: Condition | None = None) -> Float[Tensor, "b *latent"]:
        """Undo `decode`."""
        return videos.frames.transpose(1, 2).to(self.device)

    def export(self, folder: Path, shift: float | None = None) -> None:
        """Write the formula's settings and the learnt offsets; there is no stock pipeline of a formula."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(self.config.model_dump_json(indent=1) + "\n", encoding="utf-8")
        with usual_mode(offsets := folder / "offsets.safetensors"):
            save_file({name: p.detach().cpu() for name, p in self.network.named_parameters()}, offsets)


def check(config: Config) -> None:
    """A formula is always there."""


def describe(config: Config) -> Card:
    """One frame; of a text nothing is read."""
    latent = (3, 1, config.side, config.side)
    return Card(Geometry(1, config.side, config.side, 1.0, latent), 0)


def overlong(config: Config, texts: Sequence[str]) -> tuple[int, int]:
    """None is cut, for none is read."""
    return 0, 0


def build(config: Config, device: torch.device) -> Gaussian:
    """A closed-form model."""
    return Gaussian(config, device)
