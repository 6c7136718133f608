"""The forward process on Gaussian data: velocities, likelihoods, and laws tilted by a reward."""

import math

import torch
from torch import Tensor

from reelign.core import flow, gaussian
from reelign.verify import quadrature
from reelign.verify.probe import doubles, row, scalar
from reelign.verify.result import Check

MEAN, VAR, LEVEL, SLOPE = 0.4, 0.8, 0.45, 0.6
POINTS = doubles(-0.9, 0.3, 1.4)[:, None]
POSTERIOR = "posterior expectation by quadrature"


def paths() -> list[Check]:
    """Interpolation and what follows from a velocity."""
    x0, noise = row(0.8, -1.1), row(0.3, 0.5)

    def recovered() -> list[float]:
        sigma = scalar(0.35)
        x, velocity = flow.interpolate(x0, noise, sigma), flow.velocity_target(x0, noise)
        return flow.noise_from(x, velocity, sigma)[0].tolist()

    def score() -> list[float]:
        level = scalar(LEVEL)
        return (-flow.noise_from(POINTS, gaussian.velocity(POINTS, level, MEAN, VAR), level) / level)[:, 0].tolist()

    spread = (1 - LEVEL) ** 2 * VAR + LEVEL**2
    exact = [-(x - (1 - LEVEL) * MEAN) / spread for x in POINTS[:, 0].tolist()]
    return [
        Check("noise comes back", "straight path", [0.3, 0.5], recovered, 1e-12),
        Check("score of noised Gaussian data", "-(x - (1-s) m) / S", exact, score, 1e-12),
        Check("velocity is the posterior mean of noise - x0", POSTERIOR, 0, _velocity_gap, 1e-9),
        Check("velocity of a mixture likewise", POSTERIOR, 0, _mixture_gap, 1e-9),
        Check("gradient of an expectation is a covariance", "-(1-s)/s Cov(f, u | x)", 0, _covariance_gap, 1e-7),
    ]  # fmt: skip


def tilts() -> list[Check]:
    """Optima under a divergence penalty."""
    weights, means = doubles(0.3, 0.7), doubles(-1, 1.5)

    def mixture() -> list[float]:
        new_weights, new_means, kl = gaussian.tilt_mixture(weights, means, 0.3, 0.9, 0.7)
        return [*new_weights.tolist(), *new_means.tolist(), kl.item()]

    return [
        Check("linear reward: mean, variance, divergence, value", "var k / tau",
              [0.7 + 0.722222222, 0.5, 0.521604938, 0.91 + 0.469444444], lambda: gaussian.tilt_linear(0.7, 0.5, 1.3,
              0.9), 1e-8),
        Check("quadratic reward: mean, variance, divergence, value", POSTERIOR, _quadratic_tilt(),
              lambda: gaussian.tilt_quadratic(0.7, 0.5, 0.8, 0.2, 0.9), 1e-9),
        Check("mixture: weights, means, divergence", "w exp(k m / tau)",
              [0.016930, 0.983070, -0.614286, 1.885714, 0.533141], mixture, 1e-6),
        Check("displacement of the velocity", "-s G k / tau", -0.485939,
              lambda: gaussian.tilt_displacement(POINTS, scalar(LEVEL), MEAN, VAR, SLOPE, 1.0)[0].item(), 1e-6),
        Check("displacement is a difference of two velocities", "v* - v", [0.0] * 3, _displacement_gap, 1e-12),
    ]  # fmt: skip


def _clean_given(x: float) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of the clean latent given x: values, their velocity targets, weights."""
    nodes, weights = quadrature.standard_normal(60)
    at = row(x)
    centre, spread = gaussian.posterior(at, scalar(LEVEL), MEAN, VAR)
    x0 = centre[0] + spread.sqrt() * nodes
    return x0, flow.velocity_target(x0, (at[0] - (1 - LEVEL) * x0) / LEVEL), weights


def _displacement_gap() -> list[float]:
    level, tau = scalar(LEVEL), 0.9
    after, before = (gaussian.velocity(POINTS, level, mean, VAR) for mean in (MEAN + VAR * SLOPE / tau, MEAN))
    return (after - before - gaussian.tilt_displacement(POINTS, level, MEAN, VAR, SLOPE, tau))[:, 0].tolist()


def _quadratic_tilt() -> list[float]:
    """The law proportional to N(.7, .5) exp(r / .9), integrated numerically."""
    nodes, weights = quadrature.standard_normal(80)
    x0 = 0.7 + math.sqrt(0.5) * nodes
    reward = -0.4 * (x0 - 0.2) ** 2
    mass = weights * torch.exp(reward / 0.9)
    tilted, log_mass = mass / mass.sum(), mass.sum().log()
    mean = (tilted * x0).sum()
    var = (tilted * (x0 - mean) ** 2).sum()
    kl = (tilted * reward).sum() / 0.9 - log_mass
    return [mean.item(), var.item(), kl.item(), 0.9 * log_mass.item()]


def _velocity_gap() -> float:
    nodes, weights = quadrature.standard_normal(120)
    x0 = MEAN + math.sqrt(VAR) * nodes
    return _worst_velocity_gap(x0, weights, gaussian.velocity(POINTS, scalar(LEVEL), MEAN, VAR))


def _mixture_gap() -> float:
    nodes, weights = quadrature.standard_normal(120)
    shares, centres = doubles(0.3, 0.7), doubles(-1, 1.5)[:, None]
    x0 = (centres + math.sqrt(0.3) * nodes).flatten()
    found = gaussian.mixture_velocity(POINTS, scalar(LEVEL), shares, centres, 0.3)
    return _worst_velocity_gap(x0, (shares[:, None] * weights).flatten(), found)


def _worst_velocity_gap(x0: Tensor, weights: Tensor, found: Tensor) -> float:
    off = POINTS - (1 - LEVEL) * x0
    mass, noise = weights * torch.exp(-(off**2) / (2 * LEVEL**2)), off / LEVEL
    exact = (mass * flow.velocity_target(x0.expand_as(noise), noise)).sum(dim=1) / mass.sum(dim=1)
    return (exact - found[:, 0]).abs().max().item()


def _covariance_gap() -> float:
    def expected(x: float) -> float:
        x0, _, weights = _clean_given(x)
        return (weights * _curved(x0)).sum().item()

    x0, target, weights = _clean_given(0.3)
    value, mean = _curved(x0), (weights * target).sum()
    covariance = (weights * (value - (weights * value).sum()) * (target - mean)).sum().item()
    slope = (expected(0.3 + 1e-4) - expected(0.3 - 1e-4)) / 2e-4
    return slope + (1 - LEVEL) / LEVEL * covariance


def _curved(x0: Tensor) -> Tensor:
    return torch.sin(x0) + 0.3 * x0**2
