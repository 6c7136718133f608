"""Patch features of VideoMAE from a local transformers folder: each patch sees its surroundings in place and time.

The network knows clips of one length and size only, 16 frames of 224 x 224 pixels as published. A clip of f frames is
resampled in time to that length (the nearest frame at each of its evenly spaced moments, so frames are repeated or
left out but never blended), resized to that size whatever its aspect, and normalised as the folder's
preprocessor_config.json says; nothing is cropped, so the patch grid spans the frame. Each tubelet of two frames has one
feature a patch; a frame's features are those of the two tubelets around its moment, linearly interpolated between
their middles, and before the first middle and after the last one theirs.
"""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from transformers import VideoMAEModel

from reelign.backbones import _frozen
from reelign.batches import Videos
from reelign.parts import PartConfig

KINDS = {"videomae": VideoMAEModel}


class Config(PartConfig):
    """Which weights."""

    name: str = "videomae"
    weights: str
    """A local folder with config.json, preprocessor_config.json and model.safetensors."""
    micro_batch: int = Field(default=4, ge=1)
    """Clips in one forward pass."""


class VideoMAE:
    """A frozen VideoMAE. Owns its weights."""

    def __init__(self, config: Config, device: torch.device) -> None:
        """Load a folder.

        Raises:
            BadCheckpoint: no such folder, one that lacks a file, pickled weights only, or another architecture.
        """
        self.config, self.device = config, device
        self._network, self._pixels = _frozen.load(config.weights, KINDS, device)
        found = self._network.config
        self._size, self._length, self._tubelet = _frozen.side(found.image_size), found.num_frames, found.tubelet_size
        self._grid = self._size // _frozen.side(found.patch_size)

    @torch.no_grad()
    def __call__(self, videos: Videos) -> Float[Tensor, "b f n m d"]:
        """Features of every frame on a square patch grid."""
        return torch.cat([self._seen(clips) for clips in videos.frames.split(self.config.micro_batch)])

    def _seen(self, clips: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b f n m d"]:
        batch, frames = clips.shape[:2]
        moments = torch.linspace(0, frames - 1, self._length).round().long()
        resampled = clips[:, moments.to(clips.device)].to(self.device, torch.float32).flatten(0, 1)
        sized = self._pixels.prepare(resampled, self._size, self._size).unflatten(0, (batch, self._length))
        tokens = self._network(sized).last_hidden_state.float()
        return self._per_frame(tokens.reshape(batch, -1, self._grid, self._grid, tokens.shape[-1]), frames)

    def _per_frame(self, tubelets: Float[Tensor, "b t n m d"], frames: int) -> Float[Tensor, "b f n m d"]:
        """Features of tubelets as features of frames."""
        moments = torch.linspace(0, self._length - 1, frames, device=tubelets.device)
        place = ((moments - (self._tubelet - 1) / 2) / self._tubelet).clamp(0, tubelets.shape[1] - 1)
        before = place.long()
        after = (before + 1).clamp_max(tubelets.shape[1] - 1)
        part = (place - before)[:, None, None, None]
        return torch.lerp(tubelets[:, before], tubelets[:, after], part)


build = VideoMAE
