"""Reads a sampler's chain off the library's own transition, by feeding it 0 and 1."""

from collections.abc import Callable

import torch
from torch import Tensor

from reelign.core import gaussian, schedule, transition
from reelign.verify.result import Real

DOUBLE = torch.float64


def doubles(*values: Real) -> Tensor:
    """Numbers as ``[n]``."""
    return torch.tensor(values, dtype=DOUBLE)


def row(*values: Real) -> Tensor:
    """Numbers as one sample or group, ``[1 n]``."""
    return doubles(*values)[None]


def scalar(value: Real) -> Tensor:
    """A number without an axis."""
    return torch.tensor(value, dtype=DOUBLE)


def slope(loss: Callable[[Tensor], Tensor], at: Tensor) -> list[float]:
    """The gradient of a loss."""
    variable = at.clone().requires_grad_()
    return torch.autograd.grad(loss(variable), variable)[0].flatten().tolist()


def probed_chain(kind: str, levels: Tensor, eta: Tensor, mean: float, var: float) -> gaussian.Chain:
    """The affine map that each step of a sampler turns out to be on scalar Gaussian data.

    Args:
        kind: of the transition.
        levels: ``[n + 1]`` float64.
        eta: ``[n]`` strengths, float64.
        mean: of the data.
        var: of the data.
    """
    sigma, after = levels[:-1], levels[1:]

    def moved(x: float, extra: float) -> transition.Transition:
        latent = torch.full((len(sigma), 1), x, dtype=levels.dtype)
        velocity = gaussian.velocity(latent, sigma, mean, var) + extra
        return transition.step(kind, latent, velocity, sigma, after, eta)

    at_zero = moved(0.0, 0.0)
    offset = at_zero.mean[:, 0]
    slope, gain = moved(1.0, 0.0).mean[:, 0] - offset, moved(0.0, 1.0).mean[:, 0] - offset
    return gaussian.Chain(slope, offset, at_zero.std, gain)


def sampler(
    kind: str, n: int, shift: float, eta: float, mean: float, var: float, steps: range | tuple[int, ...] | None = None
) -> gaussian.Chain:
    """A probed chain on the library's own schedule; stochastic at every step but the last unless told."""
    levels = schedule.sigmas(n, shift, DOUBLE)
    chosen = range(n - 1) if steps is None else steps
    return probed_chain(kind, levels, schedule.strengths(n, chosen, eta, DOUBLE), mean, var)
