"""Where a reward was earned: maps over the latent grid from frozen features of the decoded frames (ViPO, 2511.18719).

A map is a weight of at least 0 for each place and time, so it shares a sample's advantage out and never turns its sign.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

DEGENERATE = 1e-6
"""Spread (of features, of a map) under which there is nothing to tell places apart by."""


def structure(features: Float[Tensor, "b f n m d"], components: int = 3) -> Float[Tensor, "b f n m"]:
    """Importance of each patch of each frame: principal components, weighted by the variance they explain.

    Components have no sign of their own. Each is turned so that the frame's border lies on the side of little
    importance; where border and middle are alike, so that its largest score is on the side of much importance.

    Args:
        features: ``[b f n m d]``, patch features of each frame on a grid of n rows and m columns.
        components: K; as many as there are, if there are fewer.

    Returns:
        ``[b f n m]`` in ``[0, 1]``; 0.5 everywhere in a frame whose features are all alike.
    """
    batch, frames, rows, columns, width = features.shape
    flat = features.reshape(batch * frames, rows * columns, width)
    centred = flat - flat.mean(dim=1, keepdim=True)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    kept = min(components, sizes.shape[-1])
    scores = _oriented(left[..., :kept] * sizes[:, None, :kept], rows, columns)
    energy = sizes[:, :kept].square()
    share = energy / energy.sum(dim=-1, keepdim=True).clamp_min(DEGENERATE**2)
    low, high = scores.amin(dim=1, keepdim=True), scores.amax(dim=1, keepdim=True)
    spread = high - low
    unit = torch.where(spread > DEGENERATE, (scores - low) / torch.where(spread > DEGENERATE, spread, 1), 0.5)
    total = (unit * share[:, None]).sum(dim=-1)
    alike = energy.sum(dim=-1) <= DEGENERATE**2
    return torch.where(alike[:, None], 0.5, total).clamp(0, 1).reshape(batch, frames, rows, columns)


def to_latent(
    maps: Float[Tensor, "b F n m"], grid: tuple[int, int, int], smooth: float = 1.0
) -> Float[Tensor, "b f h w"]:
    """Maps of frames as maps of latents: smoothed, resized in place and time, and stretched to [0, 1] over each clip.

    A video codec keeps the first frame by itself and then the same number of frames for each latent; where the numbers
    of frames and latents fit that, maps are averaged over the frames of a latent. Else time is interpolated.

    Args:
        maps: ``[b F n m]``, one map a frame.
        grid: f, h, w of the latent.
        smooth: standard deviation of a Gaussian, in cells of the map; 0 leaves it out.

    Returns:
        ``[b f h w]`` in ``[0, 1]``; ones for a clip whose map is constant.
    """
    # Narrower, and neighbours weigh less than float32 can hold.
    if smooth > 0.05:
        maps = _smoothed(maps, smooth)
    placed = functional.interpolate(maps, size=grid[1:], mode="bilinear", antialias=True, align_corners=False)
    return stretched(_timed(placed, grid))


def _timed(maps: Tensor, grid: tuple[int, int, int]) -> Tensor:
    frames, latents = maps.shape[1], grid[0]
    if latents > 1 and frames > 1 and (frames - 1) % (latents - 1) == 0:
        rest = maps[:, 1:].unflatten(1, (latents - 1, (frames - 1) // (latents - 1))).mean(dim=2)
        return torch.cat([maps[:, :1], rest], dim=1)
    return functional.interpolate(maps[:, None], size=grid, mode="trilinear", align_corners=False)[:, 0]


def stretched(maps: Float[Tensor, "b f h w"]) -> Float[Tensor, "b f h w"]:
    """Each clip's map brought to [0, 1]; ones where it is constant."""
    low = maps.amin(dim=(1, 2, 3), keepdim=True)
    spread = maps.amax(dim=(1, 2, 3), keepdim=True) - low
    varied = spread > DEGENERATE
    return torch.where(varied, (maps - low) / torch.where(varied, spread, 1), 1)


def mean_one(maps: Float[Tensor, "b f h w"]) -> Float[Tensor, "b f h w"]:
    """Maps with mean 1 for each clip, so that allocating credit does not lower the learning rate."""
    return maps / maps.mean(dim=(1, 2, 3), keepdim=True).clamp_min(DEGENERATE)


def dense(advantage: Float[Tensor, " b"], maps: Float[Tensor, "b f h w"]) -> Float[Tensor, "b f h w"]:
    """The advantage shared out: ``A_i M_i(p)``.

    Raises:
        ValueError: for a negative weight, which would turn the advantage's sign.
    """
    if bool((maps < 0).any()):
        raise ValueError("an allocation map holds a negative weight; it would turn the sign of the advantage there")
    return advantage[:, None, None, None] * maps


def misplaced(maps: Float[Tensor, "b f h w"], truth: Float[Tensor, "b f h w"]) -> Float[Tensor, " b"]:
    """Share of a map's mass that lies where the truth is 0, in [0, 1]; compare with that of a uniform map."""
    wrong = (maps * (truth <= 0).to(maps.dtype)).sum(dim=(1, 2, 3))
    return wrong / maps.sum(dim=(1, 2, 3)).clamp_min(DEGENERATE)


def _oriented(scores: Tensor, rows: int, columns: int) -> Tensor:
    """Scores ``[n places k]`` with the sign rule of `structure`."""
    border = torch.zeros(rows, columns, dtype=torch.bool, device=scores.device)
    border[0], border[-1], border[:, 0], border[:, -1] = True, True, True, True
    border = border.flatten()
    inside = (
        scores[:, ~border].mean(dim=1) if bool((~border).any()) else scores.new_zeros(len(scores), scores.shape[-1])
    )
    lean = inside - scores[:, border].mean(dim=1)
    extreme = scores.gather(1, scores.abs().argmax(dim=1, keepdim=True))[:, 0]
    clear = lean.abs() > DEGENERATE * scores.abs().amax(dim=1)
    sign = torch.where(clear, lean, extreme)
    return scores * torch.where(sign < 0, -1.0, 1.0)[:, None]


def _smoothed(maps: Tensor, std: float) -> Tensor:
    reach = math.ceil(3 * std)
    offsets = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    kernel = (-offsets.square() / (2 * std**2)).exp()
    kernel = kernel / kernel.sum()
    padded = functional.pad(maps, (reach, reach, reach, reach), mode="replicate")
    flat = padded.flatten(0, 1)[:, None]
    across = functional.conv2d(flat, kernel[None, None, None])
    return functional.conv2d(across, kernel[None, None, :, None])[:, 0].reshape(maps.shape)
