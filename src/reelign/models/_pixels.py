"""Between latents and pixels: stock AutoencoderKLWan."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reelign import pages, pretrained
from reelign.models._guest import Guest
from reelign.pretrained import Part

PIXELS = 2**19
"""Pixels (all frames) that are decoded at once: tiny clips in batches, real ones one by one."""


class Codec:
    """Frames in [0, 1] <-> normalised latents, by the posterior's mode and the autoencoder's per-channel statistics."""

    def __init__(self, vae: Any, device: torch.device) -> None:
        config, self._dtype = dict(vae.config), vae.dtype
        self.vae: Guest[Any] = Guest(vae, device)
        shape = (1, -1, 1, 1, 1)
        self._mean = torch.tensor(config["latents_mean"], device=device).view(shape)
        self._std = torch.tensor(config["latents_std"], device=device).view(shape)
        self.time: int = config["scale_factor_temporal"]
        self.space: int = config["scale_factor_spatial"]

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b c t h w"]:
        """Frames to latents, clip by clip: a clip's latents are kept for good, so neighbours must not touch a bit."""
        video = (2 * frames - 1).transpose(1, 2).to(self._dtype)
        with self.vae.at_work() as vae:
            modes = [vae.encode(part, return_dict=False)[0].mode() for part in video.split(1)]
        return (torch.cat(modes).float() - self._mean) / self._std

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b f 3 H W"]:
        """Latents to frames."""
        raw = (latents * self._std + self._mean).to(self._dtype)
        t, h, w = latents.shape[2:]
        size = max(1, PIXELS // (((t - 1) * self.time + 1) * h * w * self.space**2))
        frames = None
        with self.vae.at_work() as vae:
            for at, part in zip(range(0, len(raw), size), raw.split(size), strict=True):
                video = vae.decode(part, return_dict=False)[0].transpose(1, 2)
                if frames is None:  # frames of many samples are far larger than their latents: they are held once
                    frames = pages.empty((len(raw), *video.shape[1:]), torch.float32, video.device)
                frames[at : at + size] = video
        assert frames is not None, "there is no empty batch"
        return frames.add_(1).div_(2).clamp_(0, 1)


def load(vae: Part, device: torch.device, dtype: torch.dtype) -> Codec:
    """The codec of a pipeline's autoencoder.

    Raises:
        BadCheckpoint: its weights cannot be read, or are not finite.
    """
    return Codec(pretrained.load(vae, torch_dtype=dtype), device)
