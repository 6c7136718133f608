"""Between latents and pixels: stock AutoencoderKLWan, or the playground's linear codec, behind one interface."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from diffusers import AutoencoderKLWan
from jaxtyping import Float
from torch import Tensor

from reelign.errors import BadCheckpoint
from reelign.models import _folder
from reelign.playground import package
from reelign.playground.codec import SPACE, TIME, LinearCodec


@runtime_checkable
class Codec(Protocol):
    """Frames in [0, 1] <-> normalised latents."""

    channels: int
    time: int
    space: int

    def encode(self, frames: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b c t h w"]:
        """Frames to latents."""
        ...

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b f 3 H W"]:
        """Latents to frames."""
        ...


class Linear:
    """The playground's fixed linear codec on a device."""

    def __init__(self, codec: LinearCodec, device: torch.device) -> None:
        """Move the basis to the device."""
        self._codec = LinearCodec(codec.basis.to(device), codec.mean.to(device), codec.scale)
        self.channels, self.time, self.space = len(codec.basis), TIME, SPACE

    def encode(self, frames: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b c t h w"]:
        """Frames to latents."""
        return self._codec.encode(frames)

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b f 3 H W"]:
        """Latents to frames."""
        return self._codec.decode(latents)


class WanVae:
    """Stock AutoencoderKLWan: the posterior's mode, normalised by its per-channel statistics."""

    def __init__(self, vae: AutoencoderKLWan, device: torch.device) -> None:
        """Freeze the autoencoder and keep its statistics."""
        self._vae = vae.requires_grad_(False).eval().to(device)
        shape = (1, -1, 1, 1, 1)
        self._mean = torch.tensor(vae.config.latents_mean, device=device).view(shape)
        self._std = torch.tensor(vae.config.latents_std, device=device).view(shape)
        self.channels = vae.config.z_dim
        self.time, self.space = vae.config.scale_factor_temporal, vae.config.scale_factor_spatial

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b c t h w"]:
        """Frames to latents, one clip at a time: clips are large and neighbours must not matter."""
        video = (2 * frames - 1).transpose(1, 2).to(self._vae.dtype)
        mode = torch.cat([self._vae.encode(v[None]).latent_dist.mode() for v in video])
        return (mode.float() - self._mean) / self._std

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b f 3 H W"]:
        """Latents to frames, one clip at a time."""
        raw = (latents * self._std + self._mean).to(self._vae.dtype)
        video = torch.cat([self._vae.decode(z[None], return_dict=False)[0] for z in raw])
        return ((video.float().transpose(1, 2) + 1) / 2).clamp(0, 1)


def load(folder: Path, device: torch.device, dtype: torch.dtype) -> Codec:
    """The codec of a pipeline folder.

    Raises:
        BadCheckpoint: the folder has neither a Wan autoencoder nor a linear codec.
    """
    if (folder / "codec" / "config.json").is_file():
        return Linear(package.load_codec(folder / "codec"), device)
    config = folder / "vae" / "config.json"
    if not config.is_file() or _folder.read_json(config).get("_class_name") != "AutoencoderKLWan":
        raise BadCheckpoint(
            f"{str(folder)!r} has no vae/ of class AutoencoderKLWan; give a Wan2.1 diffusers pipeline folder."
        )
    return WanVae(_folder.load(AutoencoderKLWan, folder / "vae", torch_dtype=dtype), device)
