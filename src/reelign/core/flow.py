"""The straight path between data and noise, and what a velocity says about a point on it.

With ``sigma`` in [0, 1] (1 = noise, 0 = data): ``x = (1 - sigma) x0 + sigma noise`` and ``velocity = noise - x0``
(rectified flow, arXiv 2209.03003).
"""

from jaxtyping import Float
from torch import Tensor

Latent = Float[Tensor, "b *latent"]
Each = Float[Tensor, " b"]
"""One value per sample."""
PerSample = Each | Float[Tensor, ""]
"""One value per sample, or one value for all of them."""


def expand_to(value: PerSample, x: Latent) -> Tensor:
    """Reshape a per-sample value so that it multiplies whole samples; only the batch axis is touched.

    Args:
        value: ``[b]``, or a scalar tensor, which is returned as it is.
        x: the tensor to align with, ``[b *latent]``.

    Returns:
        ``[b 1 ... 1]`` with as many axes as ``x``, or the scalar.

    Raises:
        ValueError: if ``value`` has another length than the batch of ``x``.
    """
    if value.ndim == 0:
        return value
    if value.ndim != 1 or value.shape[0] != x.shape[0]:
        raise ValueError(f"got {tuple(value.shape)} values for a batch of {x.shape[0]}; give one value per sample")
    return value.reshape(-1, *[1] * (x.ndim - 1))


def refuse_non_positive(name: str, value: float) -> None:
    """Raise a ValueError unless a setting is above 0."""
    if value <= 0:
        raise ValueError(f"{name} is {value}, but it must be positive")


def per_sample_mean(x: Latent) -> Each:
    """Mean over all elements of each sample."""
    return x.reshape(x.shape[0], -1).mean(dim=1)


def interpolate(x0: Latent, noise: Latent, sigma: PerSample) -> Latent:
    """The point at noise level sigma on the line from ``x0`` to ``noise``."""
    level = expand_to(sigma, x0)
    return (1 - level) * x0 + level * noise


def velocity_target(x0: Latent, noise: Latent) -> Latent:
    """What the network regresses to: the direction from data to noise, the same at every sigma."""
    return noise - x0


def noise_from(x: Latent, velocity: Latent, sigma: PerSample) -> Latent:
    """Predicted noise, ``x + (1 - sigma) velocity``."""
    return x + (1 - expand_to(sigma, x)) * velocity


def velocity_error(velocity: Latent, target: Latent) -> Each:
    """Squared error per sample as a mean over elements, so that betas do not depend on the resolution."""
    return per_sample_mean((velocity - target) ** 2)
