"""Weights over noise levels, always with mean 1, so that they shift emphasis and leave the learning rate alone."""

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.core import transition

Steps = Float[Tensor, " k"]
"""One value per step of a sampler."""


def mean_one(raw: Steps) -> Steps:
    """Non-negative weights divided by their mean.

    Raises:
        ValueError: if a weight is negative or all are 0.
    """
    if bool((raw < 0).any()) or not bool(raw.sum() > 0):
        raise ValueError("weights must be non-negative and at least one must be positive")
    return raw / raw.mean()


def noise_scale(kind: str, sigma: Steps, sigma_next: Steps, eta: float) -> Steps:
    """In proportion to the noise a step adds, its std (TempFlow-GRPO, arXiv 2508.04324)."""
    return mean_one(_std(kind, sigma, sigma_next, eta))


def rectified(kind: str, sigma: Steps, sigma_next: Steps, eta: float) -> Steps:
    """The inverse of a step's gradient scale ``c = |d mean / d velocity| / std`` (Flash-GRPO, arXiv 2605.15980).

    Late steps have a small std and would otherwise dominate the gradient.
    """
    return mean_one(1 / gradient_scale(kind, sigma, sigma_next, eta))


def proportional(kind: str, sigma: Steps, sigma_next: Steps, eta: float) -> Steps:
    """Makes the gradient of a step proportional to its length in sigma (PCPO, arXiv 2509.25774)."""
    return mean_one((sigma - sigma_next) / gradient_scale(kind, sigma, sigma_next, eta))


def per_length(kind: str, sigma: Steps, sigma_next: Steps, eta: float) -> Steps:
    """One over a step's length in sigma (GRPO-Guard, arXiv 2510.22319), for log-ratios from `policy_loss.guarded`.

    Those react to the velocity by ``|d mean / d velocity|``, which for small noise is the length itself.
    """
    return mean_one(1 / (sigma - sigma_next))


def gradient_scale(kind: str, sigma: Steps, sigma_next: Steps, eta: float) -> Steps:
    """How strongly a step's log-probability reacts to the velocity: ``|d mean / d velocity| / std``."""
    std = _std(kind, sigma, sigma_next, eta)
    if bool((std <= 0).any()):
        raise ValueError("a deterministic step has no gradient scale; weight stochastic steps only")
    return transition.gain(kind, sigma, sigma_next, eta).abs() / std


def _std(kind: str, sigma: Tensor, sigma_next: Tensor, eta: float) -> Tensor:
    nowhere = torch.zeros_like(sigma)
    if kind == "cps":
        return transition.cps_step(nowhere, nowhere, sigma, sigma_next, eta).std
    return transition.sde_step(nowhere, nowhere, sigma, sigma_next, transition.rate(kind, sigma, sigma_next, eta)).std
