"""Preference pairs: worked examples, and where the loss must end on Gaussian data."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reelign.core import flow, gaussian, preference_loss
from reelign.verify import quadrature
from reelign.verify.probe import DOUBLE, doubles, scalar, slope
from reelign.verify.result import Check

DPO = "Flow-DPO (arXiv 2501.13918)"
POPULATION = "Bradley-Terry pairs of Gaussian data, stationary point"


def examples() -> list[Check]:
    """Numbers worked out by hand."""

    def loss_and_kappa(errors: list[float], beta: float) -> list[float]:
        policy_w, policy_l, reference_w, reference_l = (doubles(value) for value in errors)
        inside = preference_loss.margin(policy_w, policy_l, reference_w, reference_l, beta)
        loss = preference_loss.flow_dpo(policy_w, policy_l, reference_w, reference_l, beta)
        return [inside.item(), loss.item(), preference_loss.kappa(inside, beta).item()]

    return [
        Check("policy equal to reference: margin, loss, kappa", "ln 2, beta / 4", [0, math.log(2), 1250],
              lambda: loss_and_kappa([0.3, 0.35, 0.3, 0.35], 5000.0), 1e-9),
        Check("a clear preference: margin, loss, kappa", DPO, [7.5, 0.00055293, 1.38194659],
              lambda: loss_and_kappa([0.300, 0.350, 0.302, 0.349], 5000.0), 1e-8),
        Check("a wrong preference: margin, loss, kappa", DPO, [-5, 5.00671535, 248.326787],
              lambda: loss_and_kappa([0.31, 0.34, 0.30, 0.35], 500.0), 1e-8),
        Check("scalar model: loss, kappa, gradients of winner, loser, both", DPO,
              [0.48550921, 0.38461624, -0.38461624, -1.53846497, -1.92308122], _scalar_model, 1e-8),
        Check("two backward passes equal one", "kappa is constant", 0, _decoupled_gap, 1e-12),
    ]  # fmt: skip


def fixed_points() -> list[Check]:
    """The mean-shift family on Gaussian data."""
    levels = quadrature.unit_interval(48)
    single = doubles(0.35), doubles(1)
    beta_at = 2.0 * 0.8 * 0.35**2 / (0.65**2 * 0.8 + 0.35**2) ** 2

    def outside(var: float, k: float, beta: float) -> float:
        return _solve(lambda h: _loss(h, var, k, beta, *levels))

    def weighted() -> float:
        sigma = levels[0]
        weight = ((1 - sigma) ** 2 + sigma**2) ** 2 / sigma**2
        return _solve(lambda h: _loss(h, 1.0, 1.0, 1.0, *levels, weight=weight))

    return [
        Check("loss at the reference", "ln 2", math.log(2),
              lambda: _loss(scalar(0), 0.8, 0.9, 2.0, *levels).item(), 1e-12),
        Check("expected winning gap, from the gradient there", "E[D tanh(kD/2)]", 0.570331, _winning_gap, 1e-6),
        Check("margin with shared noise", "beta h var s^2/S^2 (x_w - x_l)", [-0.7764, 0], _margin_of_noise, 1e-4),
        Check("spread of the margin with separate noise", POPULATION, 1.165, _separate_noise_std, 6e-4),
        Check("one level", "h = k / beta_s", 0.9 / beta_at,
              lambda: _solve(lambda h: _loss(h, 0.8, 0.9, 2.0, *single)), 1e-7),
        Check("uniform levels, mean inside the sigmoid", "4 k / (beta pi sd)", 4 / math.pi,
              lambda: _solve(lambda h: _loss(h, 1.0, 1.0, 1.0, *levels, inside=True)), 1e-6),
        Check("levels weighted by S^2/s^2", "h = k / beta", 1, weighted, 1e-7),
        *(
            Check(f"uniform levels, as trained: var {var}, k {k}, beta {beta}", POPULATION, expected,
                  lambda var=var, k=k, beta=beta: outside(var, k, beta), 1e-5)
            for var, k, beta, expected in (
                (1.0, 1.0, 1.0, 0.901592), (1.0, 1.0, 4.0, 0.225398), (0.5, 0.9, 2.0, 0.626246)
            )
        ),
        Check(
            "labels without noise: the pull never ends, times h^2 (h = 20, 50)", "density of D at 0, pi^2 / (12 beta)",
            [2 / math.sqrt(3.2 * math.pi) * math.pi**2 / 24] * 2, _endless_pull, 1e-3,
        ),
    ]  # fmt: skip


def _change(h: Tensor, x0: Tensor, noise: Tensor, sigma: Tensor, var: float, mean: float) -> tuple[Tensor, Tensor]:
    """Denoising errors of the shifted policy and of its reference."""
    x, target = flow.interpolate(x0, noise, sigma), flow.velocity_target(x0, noise)
    policy = flow.velocity_error(gaussian.velocity(x, sigma, mean + var * h, var), target)
    return policy, flow.velocity_error(gaussian.velocity(x, sigma, mean, var), target)


def _errors(h: Tensor, gap: Tensor, sigma: Tensor, var: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Errors of policy (winner, loser) and reference (winner, loser) for pairs that lie ``gap`` apart."""
    mean, noise = 0.4, torch.full_like(gap, 0.3)[:, None]
    policy_w, reference_w = _change(h, (mean + gap / 2)[:, None], noise, sigma, var, mean)
    policy_l, reference_l = _change(h, (mean - gap / 2)[:, None], noise, sigma, var, mean)
    return policy_w, policy_l, reference_w, reference_l


def _loss(
    h: Tensor,
    var: float,
    k: float,
    beta: float,
    levels: Tensor,
    level_weights: Tensor,
    *,
    inside: bool = False,
    weight: Tensor | None = None,
) -> Tensor:
    """Expected loss over pairs, their labels and noise levels."""
    nodes, node_weights = quadrature.standard_normal(48)
    gaps = math.sqrt(2 * var) * nodes
    shape = (len(levels), len(gaps))
    gap, sigma = gaps.repeat(len(levels)), levels.repeat_interleave(len(gaps))
    errors = _errors(h, gap, sigma, var)
    strength = beta if weight is None else beta * weight.repeat_interleave(len(gaps))
    outer = (level_weights[:, None] * node_weights).flatten()
    if inside:
        errors = tuple((level_weights[:, None] * error.reshape(shape)).sum(dim=0) for error in errors)
        gap, outer = gaps, node_weights
    policy_w, policy_l, reference_w, reference_l = errors
    right = preference_loss.flow_dpo(policy_w, policy_l, reference_w, reference_l, strength)
    wrong = preference_loss.flow_dpo(policy_l, policy_w, reference_l, reference_w, strength)
    chance = torch.sigmoid(k * gap)
    return (outer * (chance * right + (1 - chance) * wrong)).sum()


def _solve(loss: Callable[[Tensor], Tensor]) -> float:
    """The stationary point, by bisection on the library's own gradient."""
    low, high = 0.0, 8.0
    for _ in range(36):
        middle = (low + high) / 2
        if slope(loss, scalar(middle))[0] < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _winning_gap() -> float:
    var, beta = 0.8, 2.0
    found = slope(lambda h: _loss(h, var, 0.9, beta, *quadrature.unit_interval(48)), scalar(0))[0]
    return -2 * found / (beta * math.pi * math.sqrt(var) / 4)


def _difference(noise_w: Tensor, noise_l: Tensor) -> Tensor:
    """Change of the winner's error minus that of the loser's, with h = .6 at sigma = .35 for a gap of 1.4."""
    mean, var, sigma = 0.4, 0.8, scalar(0.35)
    policy_w, reference_w = _change(scalar(0.6), torch.full_like(noise_w, mean + 0.7), noise_w, sigma, var, mean)
    policy_l, reference_l = _change(scalar(0.6), torch.full_like(noise_l, mean - 0.7), noise_l, sigma, var, mean)
    return (policy_w - reference_w) - (policy_l - reference_l)


def _margin_of_noise() -> list[float]:
    nodes = quadrature.standard_normal(9)[0][:, None]
    found = _difference(nodes, nodes)
    return [found.mean().item(), (found.max() - found.min()).item()]


def _separate_noise_std() -> float:
    nodes, weights = quadrature.standard_normal(9)
    found = _difference(nodes.repeat_interleave(9)[:, None], nodes.repeat(9)[:, None])
    weight = (weights[:, None] * weights).flatten()
    mean = (weight * found).sum()
    return (weight * (found - mean) ** 2).sum().sqrt().item()


def _endless_pull() -> list[float]:
    """Minus the gradient when the better of two always wins; the weight over levels makes the margin beta h D."""
    var, beta = 0.8, 2.0
    gap = torch.linspace(0, 6, 24001, dtype=DOUBLE)
    density = 2 * torch.exp(-(gap**2) / (4 * var)) / math.sqrt(4 * math.pi * var) * 0.00025
    sigma = scalar(0.35)
    strength = beta * (0.65**2 * var + 0.35**2) ** 2 / (var * 0.35**2)

    def loss(h: Tensor) -> Tensor:
        return (density * preference_loss.flow_dpo(*_errors(h, gap, sigma, var), strength)).sum()

    return [-slope(loss, scalar(h))[0] * h**2 for h in (20.0, 50.0)]


def _scalar_model() -> list[float]:
    """Velocity theta x; winner x = 1 with target 1, loser x = 2 with target 0; theta .5, reference .4, beta 2."""

    def errors(theta: Tensor) -> tuple[Tensor, Tensor]:
        return ((theta - 1) ** 2).reshape(1), ((2 * theta) ** 2).reshape(1)

    theta = scalar(0.5).requires_grad_()
    policy_w, policy_l = errors(theta)
    reference_w, reference_l = errors(scalar(0.4))
    inside = preference_loss.margin(policy_w, policy_l, reference_w, reference_l, 2.0)
    kappa = preference_loss.kappa(inside.detach(), 2.0)
    loss = preference_loss.flow_dpo(policy_w, policy_l, reference_w, reference_l, 2.0)
    winner, loser, both = (
        torch.autograd.grad(value.sum(), theta, retain_graph=True)[0].item()
        for value in (kappa * policy_w, -kappa * policy_l, loss)
    )
    return [loss.item(), kappa.item(), winner, loser, both]


def _decoupled_gap() -> float:
    _, _, winner, loser, both = _scalar_model()
    return winner + loser - both
