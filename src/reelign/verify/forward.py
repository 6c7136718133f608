"""Losses on noised samples: worked examples, and where each must end on Gaussian data with a linear advantage."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from reelign.core import flow, forward_loss, gaussian, policy_loss
from reelign.verify import quadrature
from reelign.verify.probe import doubles, row, scalar, slope
from reelign.verify.result import Check, refused

MEAN, VAR, LEVEL, SLOPE = 0.4, 0.8, 0.45, 0.6
HAND = "worked by hand from the definition"
NFT = "DiffusionNFT (arXiv 2509.16117)"
CRD = "CRD (arXiv 2603.14128)"
DGPO = "DGPO (arXiv 2510.08425)"
START = row(0.3, -1.1)
"""A velocity from which both policies start."""


class Draws(NamedTuple):
    """Noised samples of the Gaussian problem with their probabilities.

    Attributes:
        sampled: ``[b 1]``, the data's own velocity.
        target: ``[b 1]``.
        advantage: ``[b]``, ``k (x0 - m)``.
        weights: ``[b]``, adding to 1.
    """

    sampled: Tensor
    target: Tensor
    advantage: Tensor
    weights: Tensor


def examples() -> list[Check]:
    """Numbers worked out by hand."""
    return [*_of_nft(), *_of_others()]


def _of_nft() -> list[Check]:
    return [
        Check("probability of advantages -7, -5, 0, 2.5, 9 with limit 5", NFT, [0, 0, 0.5, 0.75, 1],
              lambda: forward_loss.probability(doubles(-7, -5, 0, 2.5, 9), 5.0).tolist(), 1e-12),
        Check(
            "both implicit velocities start as the one that sampled", NFT, [0, 0],
            lambda: [(v - START).abs().max().item() for v in forward_loss.implicit_velocities(START, START, 0.3)], 0.0,
        ),
        Check("implicit velocities, beta 0.4", HAND, [1.2, 0.8], _implicit, 1e-12),
        Check("NFT loss, r 0.8, beta 0.5", HAND, 14.6, lambda: _nft(None)[0], 1e-12),
        Check("NFT gradient, r 0.8, beta 0.5", HAND, [1, 2.8], lambda: _nft(None)[1], 1e-12),
        Check("self-normalised NFT loss, sigma 0.5", "squared over mean absolute error of x0",
              (0.8 * 0.5 * 8.5 / 2.5 + 0.2 * 0.5 * 2.5 / 1.5) / 0.5, lambda: _nft(0.5)[0], 1e-12),
        Check("self-normalised NFT gradient, sigma 0.5", "the unit is a constant",
              [0.8 / 5 + 0.2 / 3, 3.2 / 5 - 0.4 / 3], lambda: _nft(0.5)[1], 1e-12),
        Check("NFT gradient at the start, r 0.9", "2 (2r - 1) (sampled - target) / elements", [0.56, -1.28],
              lambda: _slope_at_start(0.9, None), 1e-12),
        Check("no NFT gradient at the start, r 1/2", NFT, [0, 0], lambda: _slope_at_start(0.5, None), 0.0),
        Check("no gradient at the start, r 1/2, self-normalised", NFT, [0, 0], lambda: _slope_at_start(0.5, 0.5), 0.0),
        refused("a probability beyond 1 is refused", "r lies in [0, 1]", lambda: _slope_at_start(1.1, None)),
    ]  # fmt: skip


def _of_others() -> list[Check]:
    return [
        Check("log-ratio at the start", "the ratio is 1", 0,
              lambda: forward_loss.log_ratio(doubles(0.3), doubles(0.3), 2.0).item(), 0.0),
        Check("gradient of the clipped surrogate at the start", "A w per error", [0.375, -2],
              lambda: slope(_surrogate, doubles(0.3, 0.7)), 1e-12),
        *(
            Check(f"log-likelihood ratio at x0 = {at}", "h (x0 - m) - h^2 var / 2", expected,
                  lambda at=at: _likelihood_ratio(at), 1e-6)
            for at, expected in ((-0.5, -0.387760), (1.3, 0.278240))
        ),
        Check("divergence is a mean over elements", HAND, 2.5,
              lambda: forward_loss.divergence(row(1, 2), row(0, 4)).item(), 1e-12),
        Check("anchored matching, errors 4 and 2.5, A -0.5, beta 0.75", HAND, -0.125,
              lambda: forward_loss.anchored(row(1, 2), row(0, 4), row(3, 0), doubles(-0.5), 0.75).item(), 1e-12),
        Check("centred implicit reward", CRD, [-0.05, 0.1, -0.05],
              lambda: forward_loss.implicit_reward(row(0.44, 0.14, 0.34), row(0.35, 0.2, 0.25))[0].tolist(), 1e-12),
        Check("CRD loss, beta 10, advantages 1, 3, -1", CRD, [0.25, 1, 2.25],
              lambda: forward_loss.crd(row(0.44, 0.14, 0.34), row(0.35, 0.2, 0.25), row(1, 3, -1), 10.0)[0].tolist(),
              1e-12),
        Check("DGPO's weight at the reference and away from it", DGPO, [0.5, 1 / (1 + math.e)],
              lambda: [
                  forward_loss.group_weight(policy, row(0.3, 0.7), row(1, -1), 10.0).item()
                  for policy in (row(0.3, 0.7), row(0.2, 0.8))
              ], 1e-12),
        Check("DGPO's gradient at the reference", "A / 2 per member", [0.75, -0.25, -0.5],
              lambda: slope(_dgpo_group, row(0.3, 0.7, 0.1)), 1e-12),
        Check("DGPO's gradient on a pair, times beta", "kappa of flow-DPO, worked by hand", [1.38194659, -1.38194659],
              _dgpo_pair, 1e-8),
    ]  # fmt: skip


def fixed_points() -> list[Check]:
    """Offset from the velocity that sampled, at one level, after which the expected loss does not fall any more."""

    def nft(beta: float) -> float:
        def loss(velocity: Tensor, draws: Draws) -> Tensor:
            # Three nodes keep every advantage below 1, where the clip of a limit of 1 would end the linear law.
            chance = forward_loss.probability(draws.advantage, 1.0)
            return forward_loss.nft(velocity, draws.sampled, draws.target, chance, beta)

        return _lowest(loss, _population(3))

    def awm(draws: Draws, beta: float) -> float:
        return _lowest(lambda v, d: forward_loss.anchored(v, d.sampled, d.target, d.advantage, beta), draws)

    return [
        Check("NFT, beta 1 and 2", "-s G k / (beta limit)", [-0.485939, -0.242970], lambda: [nft(1.0), nft(2.0)], 1e-6),
        Check("anchored AWM at x = 0.3", "Cov(A, u | x) / (beta + E[A | x])", -0.463898,
              lambda: awm(_given(0.3), 1.0), 1e-6),
        Check("anchored AWM, one offset for all x, beta 1 and 2", "-s G k / beta", [-0.485939, -0.242970],
              lambda: [awm(_population(3), beta) for beta in (1.0, 2.0)], 1e-6),
        Check("CRD, separate noises, beta 1 and 2", "least squares, -s k / (2 beta)", [-0.135, -0.0675],
              lambda: [_crd(1.0, shared=False), _crd(2.0, shared=False)], 1e-9),
        Check("CRD, shared noise, beta 1 and 2", "exact fit, -k S / (2 beta s)", [-0.889 / 3, -0.889 / 6],
              lambda: [_crd(1.0, shared=True), _crd(2.0, shared=True)], 1e-9),
    ]  # fmt: skip


def _noised(x0: Tensor, noise: Tensor, weights: Tensor) -> Draws:
    x = flow.interpolate(x0[:, None], noise[:, None], scalar(LEVEL))
    sampled = gaussian.velocity(x, scalar(LEVEL), MEAN, VAR)
    return Draws(sampled, flow.velocity_target(x0[:, None], noise[:, None]), SLOPE * (x0 - MEAN), weights)


def _population(n: int) -> Draws:
    """Clean samples and noises; exact for losses of degree below ``2 n`` in both."""
    nodes, weights = quadrature.standard_normal(n)
    x0 = (MEAN + math.sqrt(VAR) * nodes).repeat_interleave(n)
    return _noised(x0, nodes.repeat(n), (weights[:, None] * weights).flatten())


def _given(x: float) -> Draws:
    """Clean samples that may lie behind one noised latent."""
    nodes, weights = quadrature.standard_normal(3)
    centre, var = gaussian.posterior(row(x), scalar(LEVEL), MEAN, VAR)
    x0 = centre[0] + var.sqrt() * nodes
    return _noised(x0, (x - (1 - LEVEL) * x0) / LEVEL, weights)


def _lowest(loss: Callable[[Tensor, Draws], Tensor], draws: Draws) -> float:
    return _root(lambda offset: (draws.weights * loss(draws.sampled + offset, draws)).sum())


def _root(loss: Callable[[Tensor], Tensor]) -> float:
    """Where the slope of a parabola is 0, from its slopes at 0 and 1."""
    at_zero, at_one = (slope(loss, scalar(at))[0] for at in (0.0, 1.0))
    return at_zero / (at_zero - at_one)


def _crd(beta: float, *, shared: bool) -> float:
    """Groups of two; as both sides are centred, the size of groups does not move the minimum."""
    nodes, weights = quadrature.standard_normal(3)
    variables = 3 if shared else 4
    grid = torch.cartesian_prod(*[nodes] * variables)
    mass = torch.cartesian_prod(*[weights] * variables).prod(dim=1)
    x0, noise = MEAN + math.sqrt(VAR) * grid[:, :2], grid[:, 2:].expand(-1, 2)
    draws = _noised(x0.flatten(), noise.flatten(), mass)

    def loss(offset: Tensor) -> Tensor:
        policy = flow.velocity_error(draws.sampled + offset, draws.target).reshape(x0.shape)
        sampled = flow.velocity_error(draws.sampled, draws.target).reshape(x0.shape)
        found = forward_loss.crd(policy, sampled, draws.advantage.reshape(x0.shape), beta)
        return (mass * found.sum(dim=1)).sum()

    return _root(loss)


def _implicit() -> list[float]:
    return [found.item() for found in forward_loss.implicit_velocities(row(1.5), row(1), 0.4)]


def _nft(sigma: float | None) -> tuple[float, list[float]]:
    """Loss and its gradient; the good velocity is off by (1, 4), the bad one by (-1, 2)."""
    level = None if sigma is None else scalar(sigma)

    def loss(velocity: Tensor) -> Tensor:
        return forward_loss.nft(velocity, row(0, 0), row(0, -3), doubles(0.8), 0.5, sigma=level).sum()

    return loss(row(2, 2)).item(), slope(loss, row(2, 2))


def _slope_at_start(chance: float, sigma: float | None) -> list[float]:
    """Gradient for a policy that still is the one that sampled and is off by (0.7, -1.6)."""
    level = None if sigma is None else scalar(sigma)
    return slope(lambda v: forward_loss.nft(v, START, row(-0.4, 0.5), doubles(chance), 0.3, sigma=level).sum(), START)


def _surrogate(error: Tensor) -> Tensor:
    log_ratio = forward_loss.log_ratio(error, error.detach(), doubles(0.25, 4))
    return policy_loss.clipped(log_ratio, doubles(1.5, -0.5), 1e-4).sum()


def _dgpo_group(error: Tensor) -> Tensor:
    return forward_loss.dgpo(error, error.detach(), row(1.5, -0.5, -1), 50.0).sum()


def _dgpo_pair() -> list[float]:
    """The pair whose kappa at strength 5000 is known from flow-DPO."""
    reference = row(0.302, 0.349)
    pulls = slope(lambda e: forward_loss.dgpo(e, reference, row(1, -1), 5000.0).mean(), row(0.300, 0.350))
    return [5000 * value for value in pulls]


def _likelihood_ratio(x0: float) -> float:
    """Mean of the ratio over levels and noises, when the data's mean moves by 0.37 var."""
    levels, level_weights = quadrature.unit_interval(60)
    nodes, node_weights = quadrature.standard_normal(8)
    sigma, noise = levels.repeat_interleave(8), nodes.repeat(60)[:, None]
    clean = torch.full_like(noise, x0)
    x, target = flow.interpolate(clean, noise, sigma), flow.velocity_target(clean, noise)
    moved, plain = (
        flow.velocity_error(gaussian.velocity(x, sigma, mean, VAR), target) for mean in (MEAN + VAR * 0.37, MEAN)
    )
    weight = level_weights.repeat_interleave(8) * node_weights.repeat(60)
    return (weight * forward_loss.log_ratio(moved, plain, (1 - sigma) / sigma)).sum().item()
