"""Gaussian data, for which everything a post-training method does is known in closed form.

Data are N(mean, var) in every element, independently. The velocity is then affine in the latent, a sampler is a chain
``x_next = slope x + offset + std z``, and policy gradients, regularised optima and divergences are finite sums. Tests
and ``reelign verify`` compare the library with these; the ``gaussian`` model family samples from them.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.core import transition
from reelign.core.flow import Latent, PerSample, expand_to

Value = float | Float[Tensor, "*value"]
"""A number, or a tensor that broadcasts against the latent of one sample."""


def marginal_var(sigma: Tensor, var: Value) -> Tensor:
    """Variance of noised data at a level: ``(1 - sigma)^2 var + sigma^2``; the mean is ``(1 - sigma) mean``."""
    return (1 - sigma) ** 2 * var + sigma**2


def velocity(x: Latent, sigma: PerSample, mean: Value, var: Value) -> Latent:
    """The exact flow velocity ``E[noise - x0 | x]`` for data N(mean, var); sigma = 0 is allowed where var > 0."""
    level = expand_to(sigma, x)
    whitened = (x - (1 - level) * mean) / marginal_var(level, var)
    return (level - (1 - level) * var) * whitened - mean


def posterior(x: Latent, sigma: PerSample, mean: Value, var: Value) -> tuple[Latent, Tensor]:
    """Mean and variance of the clean latent given the noised one; the variance broadcasts against ``x``."""
    level = expand_to(sigma, x)
    spread = marginal_var(level, var)
    return mean + (1 - level) * var / spread * (x - (1 - level) * mean), level**2 * var / spread


def mixture_velocity(
    x: Latent, sigma: PerSample, weights: Float[Tensor, " k"], means: Float[Tensor, "k *latent"], var: float
) -> Latent:
    """The exact flow velocity for a mixture of Gaussians over whole latents that share one variance per element.

    The weights add to 1; sigma is above 0 if ``var`` is 0.
    """
    level = sigma.expand(len(x))
    centres = (1 - _column(level[:, None], means)) * means
    distance = (x[:, None] - centres).reshape(len(x), len(weights), -1).square().sum(dim=2)
    share = torch.softmax(weights.log() - distance / (2 * marginal_var(level, var))[:, None], dim=1)
    each = torch.stack([velocity(x, sigma, component, var) for component in means], dim=1)
    return (_column(share, means) * each).sum(dim=1)


class Tilted(NamedTuple):
    """The law that maximises expected reward minus ``tau`` times the divergence from N(mean, var)."""

    mean: float
    var: float
    kl: float
    value: float


def tilt_linear(mean: float, var: float, k: float, tau: float) -> Tilted:
    """Optimum for the reward ``k x0``: the data shift by ``var k / tau``."""
    kl = k * k * var / (2 * tau**2)
    return Tilted(mean + var * k / tau, var, kl, k * mean + k * k * var / (2 * tau))


def tilt_quadratic(mean: float, var: float, q: float, c: float, tau: float) -> Tilted:
    """Optimum for the reward ``-q/2 (x0 - c)^2``: shifted and narrowed."""
    new_var = 1 / (1 / var + q / tau)
    new_mean = new_var * (mean / var + q * c / tau)
    value = -tau / 2 * math.log1p(var * q / tau) - q / 2 * (mean - c) ** 2 / (1 + var * q / tau)
    reward = -q / 2 * (new_var + (new_mean - c) ** 2)
    return Tilted(new_mean, new_var, (reward - value) / tau, value)


def tilt_mixture(
    weights: Float[Tensor, " k"], means: Float[Tensor, " k"], var: float, k: float, tau: float
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"], Float[Tensor, ""]]:
    """Optimum for the reward ``k x0`` on a scalar mixture: new weights, new means, divergence.

    The weights are the exact amount of mode loss that the reward asks for; more than that is collapse.
    """
    log_mass = weights.log() + k * means / tau + k * k * var / (2 * tau**2)
    new_weights, new_means = torch.softmax(log_mass, dim=0), means + var * k / tau
    return new_weights, new_means, (new_weights * new_means).sum() * k / tau - torch.logsumexp(log_mass, dim=0)


def tilt_displacement(x: Latent, sigma: PerSample, mean: Value, var: Value, k: float, tau: float) -> Latent:
    """Velocity of the law tilted by ``k x0 / tau`` minus the velocity of the data; the same at every x."""
    level = expand_to(sigma, x)
    return (-level * var / marginal_var(level, var) * k / tau).expand_as(x)


@dataclass(frozen=True, slots=True)
class Chain:
    """A sampler on scalar Gaussian data: ``x_next = slope x + offset + std z``, one entry per step.

    ``std`` is 0 where deterministic; ``gain`` is the shift of the step's mean per unit added to the velocity.
    """

    slope: Float[Tensor, " n"]
    offset: Float[Tensor, " n"]
    std: Float[Tensor, " n"]
    gain: Float[Tensor, " n"]


def chain(kind: str, levels: Float[Tensor, " levels"], eta: Float[Tensor, " n"], mean: float, var: float) -> Chain:
    """The chain of a sampler, written out by hand rather than by running the transition.

    Args:
        kind: of the transition.
        levels: ``[n + 1]`` from `schedule.sigmas`, best in float64.
        eta: ``[n]`` strengths from `schedule.strengths`, same dtype.
        mean: of the data.
        var: of the data, positive.
    """
    sigma, after = levels[:-1], levels[1:]
    spread = marginal_var(sigma, var)
    b_slope = (sigma - (1 - sigma) * var) / spread
    b_offset = -mean * (1 + b_slope * (1 - sigma))
    if kind == "cps":
        cos, sin = torch.cos(eta * math.pi / 2), torch.sin(eta * math.pi / 2)
        gain = -(1 - after) * sigma + after * cos * (1 - sigma)
        return Chain((1 - after) + after * cos + gain * b_slope, gain * b_offset, after * sin, gain)
    delta = sigma - after
    g = torch.zeros_like(sigma) if kind == "ode" else transition.rate(kind, sigma, after, eta)
    q = g**2 / (2 * sigma)
    gain = -delta * (1 + q * (1 - sigma))
    return Chain(1 - delta * q + gain * b_slope, gain * b_offset, g * delta.sqrt(), gain)


def influence(c: Chain) -> Float[Tensor, " n"]:
    """Shift of the final latent per unit shift of each step's mean: the product of all later slopes."""
    later = torch.cat([c.slope[1:], c.slope.new_ones(1)])
    return later.flip(0).cumprod(0).flip(0)


def spread(c: Chain) -> Float[Tensor, ""]:
    """Variance of the final latent given the initial noise."""
    return (influence(c) * c.std).square().sum()


def moments(c: Chain) -> tuple[Float[Tensor, " levels"], Float[Tensor, " levels"]]:
    """Mean and variance of the latent at every level, starting from standard noise; ``[n + 1]`` each."""
    means, variances = [0.0], [1.0]
    for slope, offset, std in zip(c.slope.tolist(), c.offset.tolist(), c.std.tolist(), strict=True):
        means.append(slope * means[-1] + offset)
        variances.append(slope**2 * variances[-1] + std**2)
    return c.slope.new_tensor(means), c.slope.new_tensor(variances)


def deployed_shift(c: Chain, velocity_offset: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Shift of the final latent when each step's velocity gets an offset; the chain may be another sampler's."""
    return (influence(c) * c.gain * velocity_offset).sum()


class Optimum(NamedTuple):
    """What a chain converges to when reward minus ``tau`` times the divergence along the path is maximised.

    Attributes:
        mean: of the final latent.
        var: of the final latent.
        kl: divergence, summed over steps.
        value: expected reward minus ``tau kl``.
        shifts: ``[n]``, change of each step's mean, where it is the same at every latent; otherwise empty.
    """

    mean: float
    var: float
    kl: float
    value: float
    shifts: Tensor


def linear_optimum(c: Chain, k: float, tau: float) -> Optimum:
    """For the reward ``k x0``: every step shifts by ``std^2 influence k / tau``, in all ``k spread / tau``."""
    means, variances = moments(c)
    gained = k * float(spread(c)) / tau
    start = float(means[-1])
    shifts = c.std.square() * influence(c) * k / tau
    kl = k * gained / (2 * tau)
    return Optimum(start + gained, float(variances[-1]), kl, k * start + k * gained / 2, shifts)


def quadratic_tilt(c: Chain, q: float, target: float, tau: float) -> Optimum:
    """For ``-q/2 (x0 - target)^2`` with kernels free to shrink: an upper bound that a fixed std cannot reach."""
    free, kept = float(spread(c)), float(c.slope.prod())
    start = float(moments(c)[0][-1])
    ratio = 1 + free * q / tau
    mean = (start + free * q / tau * target) / ratio
    var = free / ratio + (kept / ratio) ** 2
    value = -tau / 2 * math.log(ratio) - q / 2 * ((start - target) ** 2 + kept**2) / ratio
    reward = -q / 2 * (var + (mean - target) ** 2)
    return Optimum(mean, var, (reward - value) / tau, value, c.std.new_zeros(0))


def quadratic_feedback(c: Chain, q: float, target: float, tau: float) -> Optimum:
    """For ``-q/2 (x0 - target)^2`` with each step's mean free and its std fixed: what a flexible policy reaches."""
    plan, constant = [], 0.0
    for slope, offset, std in reversed(list(zip(c.slope.tolist(), c.offset.tolist(), c.std.tolist(), strict=True))):
        pull = std**2 * q / tau
        plan.append((slope, offset, std, pull, target))
        constant -= q * std**2 / 2
        q, target = slope**2 * q / (1 + pull), (target - offset) / slope
    value = constant - q / 2 * (target**2 + 1)
    mean, var, kl = 0.0, 1.0, 0.0
    for slope, offset, std, pull, aim in reversed(plan):
        ahead, wide = slope * mean + offset, slope**2 * var
        share = pull / (1 + pull)
        if std > 0:
            kl += share**2 * ((aim - ahead) ** 2 + wide) / (2 * std**2)
        mean, var = ahead + share * (aim - ahead), (1 - share) ** 2 * wide + std**2
    return Optimum(mean, var, kl, value, c.std.new_zeros(0))


def quadratic_offsets(c: Chain, q: float, target: float, tau: float) -> Optimum:
    """For ``-q/2 (x0 - target)^2`` with one constant shift per step: only the mean can move."""
    free = float(spread(c))
    means, variances = moments(c)
    start, var = float(means[-1]), float(variances[-1])
    gained = free * q * (target - start) / (tau + q * free)
    kl = gained**2 / (2 * free)
    value = -q / 2 * ((start + gained - target) ** 2 + var) - tau * kl
    return Optimum(start + gained, var, kl, value, gained * influence(c) * c.std.square() / free)


def _column(values: Tensor, means: Tensor) -> Tensor:
    """``[b k]`` or ``[b 1]`` with one axis added per latent axis."""
    return values.reshape(*values.shape, *[1] * (means.ndim - 1))
