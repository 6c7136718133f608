"""The latent space of the packaged autoencoder: principal components of 4x8x8 blocks of pixels.

The autoencoder is trained to decode these latents and to encode clips into them (docs/adr/0001), so the transformer can
be trained on exact linear latents that cost nothing to compute.

The first frame stands alone, as in Wan's causal codec: it fills a whole block by repetition, so 1 + 4k frames become
1 + k latent frames. Each block of 4 x 8 x 8 x 3 values is projected on its `channels` leading principal directions.
One scale for all channels keeps their natural spectrum, which a small model learns far faster than whitened latents.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.playground.world.wanted import Frames

TIME, SPACE = 4, 8
"""Frames and pixels a latent element spans."""


@dataclass(frozen=True, slots=True)
class LinearCodec:
    """basis [channels, 768] with orthonormal rows, mean [768] (both for pixels in [-1, 1]), and one latent scale.

    `variance` is that of each latent channel over the clips the codec was fitted to.
    """

    basis: Float[Tensor, "c n"]
    mean: Float[Tensor, " n"]
    scale: float
    variance: Float[Tensor, " c"]

    def encode(self, clips: Frames) -> Float[Tensor, "b c t h w"]:
        """Pixels in [0, 1] to latents of about unit variance."""
        values = blocks(2 * clips - 1)
        return torch.einsum("bthwn,cn->bcthw", values - self.mean, self.basis) * self.scale

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Frames:
        """Latents to pixels in [0, 1]."""
        values = torch.einsum("bcthw,cn->bthwn", latents / self.scale, self.basis) + self.mean
        return ((unblocks(values) + 1) / 2).clamp(0, 1)


def blocks(video: Frames) -> Float[Tensor, "b t h w n"]:
    """Cut a video of 1 + 4k frames into 4x8x8 blocks; the first frame is repeated into a block of its own."""
    b, f, c, height, width = video.shape
    assert (f - 1) % TIME == 0, f
    assert height % SPACE == 0, height
    assert width % SPACE == 0, width
    padded = torch.cat([video[:, :1].expand(-1, TIME - 1, -1, -1, -1), video], dim=1)
    cut = padded.reshape(b, -1, TIME, c, height // SPACE, SPACE, width // SPACE, SPACE)
    return cut.permute(0, 1, 4, 6, 2, 3, 5, 7).flatten(4)


def unblocks(values: Float[Tensor, "b t h w n"]) -> Frames:
    """Undo `blocks`; the first frame is the mean of its block's four copies."""
    b, t, h, w, _ = values.shape
    cut = values.reshape(b, t, h, w, TIME, 3, SPACE, SPACE).permute(0, 1, 4, 5, 2, 6, 3, 7)
    padded = cut.reshape(b, t * TIME, 3, h * SPACE, w * SPACE)
    return torch.cat([padded[:, :TIME].mean(dim=1, keepdim=True), padded[:, TIME:]], dim=1)


def fit(clips: Frames, channels: int) -> LinearCodec:
    """Principal directions of the clips' blocks; each direction's largest entry is made positive."""
    values = blocks(2 * clips - 1).flatten(0, 3).double()
    mean = values.mean(dim=0)
    covariance = (values - mean).T @ (values - mean) / (len(values) - 1)
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    basis = vectors[:, -channels:].flip(1).T
    sign = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True)).sign()
    scale = 1 / float(eigenvalues[-channels:].mean().sqrt())
    variance = (eigenvalues[-channels:].flip(0) * scale**2).float()
    return LinearCodec((basis * sign).float().contiguous(), mean.float(), scale, variance)
