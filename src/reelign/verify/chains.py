"""A whole sampler on Gaussian data: gradients, optima under a divergence penalty, and deployment elsewhere."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reelign.core import gaussian, policy_loss, rng, schedule, transition
from reelign.verify import probe
from reelign.verify.probe import DOUBLE, scalar
from reelign.verify.result import Check

MEAN, VAR, SLOPE, TAU = 0.7, 0.5, 1.3, 0.9
SOURCE = "Gaussian chain, closed form"
SAMPLES = 40_000


def optima() -> list[Check]:
    """Ten steps, shift 3, against reference numbers."""
    rows = [
        ("flow", 0.7, None, [0.380883, 0.367749, 0.531193, 0.383639, 1.255276], [0.311410, 0.595490, 1.418182]),
        ("cps", 0.7, None, [0.238925, 0.238922, 0.345110, 0.249246, 1.134321], [0.011168, 0.134546, 1.418182]),
        ("dance", 0.3, None, [0.323069, 0.050849, 0.073449, 0.053047, 0.957742], [0.736923, 0.898839, 1.418182]),
        ("flow", 0.7, (2,), [0.331250, 0.115809, 0.167280, 0.120813, 1.018732], [0.832065]),
    ]
    shifts = [0.112769, 0.188643, 0.124613, 0.105495, 0.099474, 0.100174, 0.105169, 0.110604, 0.103409, 0]
    return [
        *(
            Check(f"{_label(kind, eta, steps)}: variance, spread, shift, divergence, value", SOURCE, expected,
                  lambda kind=kind, eta=eta, steps=steps: _linear(kind, eta, steps), 1e-6)
            for kind, eta, steps, expected, _ in rows
        ),
        *(
            Check(f"{_label(kind, eta, steps)}: exact policy gradient at steps {steps or (1, 4, 8)}",
                  "k times the product of later slopes", slopes,
                  lambda kind=kind, eta=eta, steps=steps: _gradients(kind, eta, steps), 1e-6)
            for kind, eta, steps, _, slopes in rows
        ),
        Check("flow 0.7: optimal shift of every step", SOURCE, shifts,
              lambda: gaussian.linear_optimum(_sampler("flow", 0.7), SLOPE, TAU).shifts.tolist(), 1e-6),
        Check("quadratic reward, kernels free: mean, variance, value", SOURCE, [0.576822, 0.284611, -0.206600],
              lambda: _quadratic(gaussian.quadratic_tilt), 1e-6),
        Check("quadratic reward, feedback with fixed std: mean, variance, value", SOURCE,
              [0.576822, 0.296991, -0.209317], lambda: _quadratic(gaussian.quadratic_feedback), 1e-6),
        Check("quadratic reward, feedback with fixed std: divergence", SOURCE, 0.037471,
              lambda: gaussian.quadratic_feedback(_sampler("flow", 0.7), 0.8, 0.2, TAU).kl, 1e-6),
        Check("quadratic reward, offsets only: mean, variance, value", SOURCE, [0.7 - 0.123178, 0.380883, -0.227717],
              lambda: _quadratic(gaussian.quadratic_offsets), 1e-6),
        Check(
            "the divergence of a shift is that of the two transitions", "h^2 / (2 std^2)", 0.383639, _summed_kl, 1e-6
        ),
    ]  # fmt: skip


def deployment() -> list[Check]:
    """Optimal offsets of an SDE put into the ODE sampler; only eta = sqrt 2 carries over."""
    table = {
        ("flow", 0.7): {10: (0.531, 0.659), 20: (0.612, 0.802), 100: (0.694, 0.977), 4000: (0.721, 1.098)},
        ("flow", 1.0): {10: (0.603, 0.682), 20: (0.653, 0.804)},
        ("flow", math.sqrt(2)): {10: (0.698, 0.535), 20: (0.685, 0.619), 100: (0.712, 0.700), 4000: (0.722, 0.722)},
        ("dance", 0.3): {10: (0.073, 0.073), 20: (0.100, 0.098)},
        ("flash", 1.0): {10: (0.263, 0.274), 20: (0.291, 0.306)},
        ("cps", 0.7): {10: (0.345, 0.329), 20: (0.415, 0.296), 100: (0.490, 0.153)},
    }
    singles = {
        ("flow", 0.7): 1.015, ("flow", math.sqrt(2)): 2.976, ("flash", 1.0): 0.086, ("dance", 0.3): 0.009,
        ("cps", 0.7): 1.857,
    }  # fmt: skip
    return [
        *(
            Check(f"{kind} {eta:.3g}, {n} steps: shift under the SDE and under the ODE", SOURCE, list(pair),
                  lambda kind=kind, eta=eta, n=n: _deployed(kind, eta, n), 6e-4)
            for (kind, eta), row in table.items()
            for n, pair in row.items()
        ),
        *(
            Check(f"{kind} {eta:.3g}, steps trained one at a time: shift under the ODE", SOURCE, total,
                  lambda kind=kind, eta=eta: sum(_deployed_singles(kind, eta)), 6e-4)
            for (kind, eta), total in singles.items()
        ),
        Check("cps 0.7 gives each of ten steps nearly the same credit: first, last", SOURCE, [0.409, 0.402],
              lambda: _trained_alone("cps", 0.7), 6e-4),
        Check("flow 0.7 gives early steps more: first, last", SOURCE, [0.258, 0.057],
              lambda: _trained_alone("flow", 0.7), 6e-4),
        Check("flash gives late steps more: first, last", SOURCE, [0.005, 0.014],
              lambda: _trained_alone("flash", 1.0), 6e-4),
    ]  # fmt: skip


def gradients() -> list[Check]:
    """Sampled policy gradients and ratios; every number is an error in standard errors, so 3 is the tolerance."""
    kinds = [("flow", 0.7, None), ("cps", 0.7, None), ("dance", 0.3, None), ("flash", 1.0, None), ("flow", 0.7, (2,))]
    return [
        *(
            Check(f"sampled policy gradient, {_label(kind, eta, steps)} (in standard errors)",
                  "REINFORCE is unbiased: k times the product of later slopes",
                  [0.0] * (9 if steps is None else len(steps)),
                  lambda kind=kind, eta=eta, steps=steps: _policy_gradient(kind, eta, steps), 3.0)
            for kind, eta, steps in kinds
        ),
        *(
            Check(f"gradient of a group of 8, {label}: mean, spread", "7/8 of the exact gradient; spread by simulation",
                  expected, lambda steps=steps, shared=shared: _group_gradient(steps, shared), 0.03)
            for label, steps, shared, expected in (
                ("all steps stochastic, separate starts", None, False, [0.521054, 0.711]),
                ("all steps stochastic, shared start", None, True, [0.521054, 0.700]),
                ("one step stochastic, separate starts", (4,), False, [0.834604, 0.706]),
                ("one step stochastic, shared start", (4,), True, [0.834604, 0.446]),
            )
        ),
        Check("mean of the summed ratio is 1, of the log-ratio is minus the divergence, of the guarded one is 0",
              "importance weights; -KL / D; GRPO-Guard (arXiv 2510.22319)", [0.0] * 3, _ratio_law, 3.0),
        Check("width of the guarded log-ratio", "|mean gap| / D", 1, _guard_width, 0.02),
    ]  # fmt: skip


def _label(kind: str, eta: float, steps: tuple[int, ...] | None) -> str:
    return f"{kind} {eta}" if steps is None else f"{kind} {eta}, step {', '.join(map(str, steps))} only"


def _sampler(kind: str, eta: float, steps: tuple[int, ...] | None = None) -> gaussian.Chain:
    return probe.sampler(kind, 10, 3.0, eta, MEAN, VAR, steps)


def _linear(kind: str, eta: float, steps: tuple[int, ...] | None) -> list[float]:
    found = _sampler(kind, eta, steps)
    best = gaussian.linear_optimum(found, SLOPE, TAU)
    start = gaussian.moments(found)[0][-1].item()
    return [best.var, gaussian.spread(found).item(), best.mean - start, best.kl, best.value]


def _gradients(kind: str, eta: float, steps: tuple[int, ...] | None) -> list[float]:
    return (SLOPE * gaussian.influence(_sampler(kind, eta, steps)))[list(steps or (1, 4, 8))].tolist()


def _quadratic(optimum: Callable[[gaussian.Chain, float, float, float], gaussian.Optimum]) -> list[float]:
    best = optimum(_sampler("flow", 0.7), 0.8, 0.2, TAU)
    return [best.mean, best.var, best.value]


def _summed_kl() -> float:
    """Apply the optimal offsets to the velocity and add up the library's own step divergences."""
    found = _sampler("flow", 0.7)
    offset = (gaussian.linear_optimum(found, SLOPE, TAU).shifts / found.gain)[:-1, None]
    levels = schedule.sigmas(10, 3.0, DOUBLE)
    sigma, after = levels[:-2], levels[1:-1]
    x = torch.linspace(-1, 1, 9, dtype=DOUBLE)[:, None]
    velocity = gaussian.velocity(x, sigma, MEAN, VAR)
    policy = transition.step("flow", x, velocity + offset, sigma, after, 0.7)
    return transition.step_kl(policy, transition.step("flow", x, velocity, sigma, after, 0.7)).sum().item()


def _deployed(kind: str, eta: float, n: int) -> list[float]:
    trained, ode = probe.sampler(kind, n, 3.0, eta, MEAN, VAR), probe.sampler("ode", n, 3.0, 0.0, MEAN, VAR)
    best = gaussian.linear_optimum(trained, SLOPE, TAU)
    start = gaussian.moments(trained)[0][-1].item()
    return [best.mean - start, gaussian.deployed_shift(ode, best.shifts / trained.gain).item()]


def _trained_alone(kind: str, eta: float) -> list[float]:
    """Shift of the first and of the tenth of 20 steps, each trained alone, each in the sampler it was trained in."""
    alone = [probe.sampler(kind, 20, 5.0, eta, MEAN, VAR, (k,)) for k in (0, 9)]
    return [SLOPE * gaussian.spread(trained).item() / TAU for trained in alone]


def _deployed_singles(kind: str, eta: float) -> list[float]:
    ode = probe.sampler("ode", 20, 5.0, 0.0, MEAN, VAR)
    alone = [probe.sampler(kind, 20, 5.0, eta, MEAN, VAR, (k,)) for k in range(10)]
    shifts = [gaussian.linear_optimum(trained, SLOPE, TAU).shifts / trained.gain for trained in alone]
    return [gaussian.deployed_shift(ode, shift).item() for shift in shifts]


def _policy_gradient(kind: str, eta: float, steps: tuple[int, ...] | None) -> list[float]:
    """Score-function estimate of d E[k x0] / d (mean of each stochastic step), through the library's log-density."""
    start = rng.normal((SAMPLES, 1), seed=rng.seed_for(6, "verify", kind, "start"), dtype=DOUBLE)
    reward, scores = _rollout(kind, eta, steps, start)
    terms = torch.stack(list(scores.values()), dim=1) * (reward - reward.mean())[:, None]
    exact = (SLOPE * gaussian.influence(_sampler(kind, eta, steps)))[list(scores)]
    return ((terms.mean(dim=0) - exact) / (terms.std(dim=0) / math.sqrt(SAMPLES))).tolist()


def _group_gradient(steps: tuple[int, ...] | None, shared: bool) -> list[float]:
    """Mean and spread over groups of 8 of the estimated gradient at step 4, with the group's mean as baseline."""
    members, groups = 8, SAMPLES // 8
    starts = groups if shared else groups * members
    start = rng.normal((starts, 1), seed=rng.seed_for(3, "verify", "start"), dtype=DOUBLE)
    reward, scores = _rollout("flow", 0.7, steps, start.repeat_interleave(members, dim=0) if shared else start)
    reward_pg = reward.reshape(groups, members)
    centred = reward_pg - reward_pg.mean(dim=1, keepdim=True)
    found = (centred * scores[4].reshape(groups, members)).mean(dim=1)
    return [found.mean().item(), found.std().item()]


def _rollout(kind: str, eta: float, steps: tuple[int, ...] | None, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """Rewards, and per stochastic step the gradient of the log-density with respect to the step's mean."""
    levels = schedule.sigmas(10, 3.0, DOUBLE)
    strengths = schedule.strengths(10, range(9) if steps is None else steps, eta, DOUBLE)
    scores = {}
    for k in range(10):
        sigma, after, strength = levels[k], levels[k + 1], strengths[k]
        offset = torch.zeros_like(x, requires_grad=True)
        found = transition.step(kind, x, gaussian.velocity(x, sigma, MEAN, VAR) + offset, sigma, after, strength)
        noise = rng.normal(x.shape, seed=rng.seed_for(6, "verify", kind, "step", k), dtype=DOUBLE)
        drawn = transition.draw(found, noise).detach()
        if strength > 0:
            slope = torch.autograd.grad(transition.log_prob(found, drawn).sum(), offset)[0]
            scores[k] = slope[:, 0] / transition.gain(kind, sigma, after, strength)
        x = drawn
    return SLOPE * x[:, 0], scores


def _perturbed() -> tuple[Tensor, Tensor, Tensor, float, int]:
    elements, level, after = 16, scalar(0.6), scalar(0.5)
    x = rng.normal((SAMPLES, elements), seed=rng.seed_for(2, "verify", "latent"), dtype=DOUBLE)
    velocity = gaussian.velocity(x, level, MEAN, VAR)
    sampled = transition.step("flow", x, velocity, level, after, 0.7)
    policy = transition.step("flow", x, velocity + 0.15, level, after, 0.7)
    noise = rng.normal((SAMPLES, elements), seed=rng.seed_for(2, "verify", "noise"), dtype=DOUBLE)
    drawn = transition.draw(sampled, noise)
    log_ratio = transition.log_prob(policy, drawn) - transition.log_prob(sampled, drawn)
    kl = transition.step_kl(policy, sampled)
    gap = (policy.mean - sampled.mean)[0].norm().item()
    return log_ratio, kl, policy_loss.guarded(log_ratio, kl, sampled.std), gap, elements


def _ratio_law() -> list[float]:
    log_ratio, kl, guarded, _, elements = _perturbed()
    terms = (torch.exp(elements * log_ratio) - 1, log_ratio + kl, guarded)
    return [(term.mean() / (term.std() / math.sqrt(SAMPLES))).item() for term in terms]


def _guard_width() -> float:
    _, _, guarded, gap, elements = _perturbed()
    return guarded.std().item() / (gap / elements)
