"""Patch features of DINOv2, with or without registers, from a local transformers folder.

Each frame is seen on its own. It is resized so that its shorter side is near `side` and both sides are whole numbers of
patches, and normalised as the folder's preprocessor_config.json says; nothing is cropped, so the patch grid spans the
frame. The class token and the registers are left out.
"""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from transformers import Dinov2Model, Dinov2WithRegistersModel

from reelign.backbones import _frozen
from reelign.batches import Videos
from reelign.parts import PartConfig

KINDS = {"dinov2": Dinov2Model, "dinov2_with_registers": Dinov2WithRegistersModel}


class Config(PartConfig):
    """Which weights, and how fine."""

    name: str = "dinov2"
    weights: str
    """A local folder with config.json, preprocessor_config.json and model.safetensors."""
    side: int = Field(default=224, ge=1)
    """Pixels of a frame's shorter side as the network sees it."""
    micro_batch: int = Field(default=32, ge=1)
    """Frames in one forward pass."""


class Dinov2:
    """A frozen DINOv2. Owns its weights."""

    def __init__(self, config: Config, device: torch.device) -> None:
        """Load a folder.

        Raises:
            BadCheckpoint: no such folder, one that lacks a file, pickled weights only, or another architecture.
        """
        self.config, self.device = config, device
        self._network, self._pixels = _frozen.load(config.weights, KINDS, device)
        self._patch = _frozen.side(self._network.config.patch_size)
        self._extra = 1 + getattr(self._network.config, "num_register_tokens", 0)

    @torch.no_grad()
    def __call__(self, videos: Videos) -> Float[Tensor, "b f n m d"]:
        """Features of every frame on its patch grid of n rows and m columns."""
        batch, frames, _, height, width = videos.frames.shape
        scale = self.config.side / min(height, width) / self._patch
        rows, columns = (max(1, round(length * scale)) for length in (height, width))
        flat = videos.frames.flatten(0, 1)
        seen = [self._seen(part, rows, columns) for part in flat.split(self.config.micro_batch)]
        return torch.cat(seen).reshape(batch, frames, rows, columns, -1)

    def _seen(self, frames: Float[Tensor, "n 3 H W"], rows: int, columns: int) -> Float[Tensor, "n p d"]:
        frames = frames.to(self.device, torch.float32)
        sized = self._pixels.prepare(frames, rows * self._patch, columns * self._patch)
        return self._network(sized).last_hidden_state[:, self._extra :].float()


build = Dinov2
