"""A model that encodes a clip as itself, for tests of data."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reelign.batches import Condition, Videos
from reelign.protocols import Geometry, VideoModel
from reelign.weights import Reference


class IdentityModel(VideoModel):
    """Latents are the frames, channels first; `encoded` counts the clips."""

    def __init__(self, frames: int, height: int, width: int, fps: float = 8.0) -> None:
        self.geometry = Geometry(frames, height, width, fps, (3, frames, height, width))
        self.network, self.device, self.encoded = nn.Identity(), torch.device("cpu"), 0
        self.reference = Reference(self.network)

    def encode_video(self, videos: Videos, condition: Condition | None = None) -> Float[Tensor, "b *latent"]:
        assert videos.fps == self.geometry.fps
        self.encoded += len(videos)
        return videos.frames.transpose(1, 2).clone()
