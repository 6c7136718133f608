"""Samplers on Gaussian data: optimisers and policy gradients find what the closed forms say."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reelign.core import advantage, gaussian, policy_loss, rng, schedule, transition
from reelign.verify import probe

MEAN, VAR, TAU = 0.7, 0.5, 0.9
SAMPLERS = [("flow", 0.7, None), ("dance", 0.3, None), ("longcat", 1.0, None), ("cps", 0.7, None), ("flow", 0.7, (2,))]


def _chain(kind: str, eta: float, steps: tuple[int, ...] | None) -> gaussian.Chain:
    levels = schedule.sigmas(10, 3.0, torch.float64)
    chosen = range(9) if steps is None else steps
    return gaussian.chain(kind, levels, schedule.strengths(10, chosen, eta, torch.float64), MEAN, VAR)


def _objective(chain: gaussian.Chain, shifts: Tensor, feedback: Tensor, reward: str) -> Tensor:
    """Reward minus tau times divergence when each step's mean moves by ``shift + feedback x``, by exact moments."""
    mean, var, kl = torch.zeros(1).double(), torch.ones(1).double(), torch.zeros(1).double()
    for k in range(10):
        std = chain.std[k]
        if std > 0:
            kl = kl + ((shifts[k] + feedback[k] * mean) ** 2 + feedback[k] ** 2 * var) / (2 * std**2)
            slope, offset = chain.slope[k] + feedback[k], chain.offset[k] + shifts[k]
        else:
            slope, offset = chain.slope[k], chain.offset[k]
        mean, var = slope * mean + offset, slope**2 * var + std**2
    gained = 1.3 * mean if reward == "linear" else -0.4 * ((mean - 0.2) ** 2 + var)
    return (gained - TAU * kl).squeeze()


def _optimise(chain: gaussian.Chain, reward: str, *, with_feedback: bool) -> tuple[float, Tensor]:
    shifts, feedback = torch.zeros(10).double().requires_grad_(), torch.zeros(10).double().requires_grad_()
    free = [shifts, feedback] if with_feedback else [shifts]
    search = torch.optim.LBFGS(
        free, max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        loss = -_objective(chain, shifts, feedback, reward)
        loss.backward()
        return loss

    search.step(closure)
    return _objective(chain, shifts, feedback, reward).item(), shifts.detach()


@pytest.mark.parametrize(("kind", "eta", "steps"), SAMPLERS)
def test_an_optimiser_finds_the_linear_optimum(kind: str, eta: float, steps: tuple[int, ...] | None) -> None:
    chain = _chain(kind, eta, steps)
    best = gaussian.linear_optimum(chain, 1.3, TAU)
    value, shifts = _optimise(chain, "linear", with_feedback=True)
    assert value == pytest.approx(best.value, abs=1e-7)
    assert_close(shifts, best.shifts, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("kind", "eta", "steps"), SAMPLERS)
def test_an_optimiser_finds_the_quadratic_optima(kind: str, eta: float, steps: tuple[int, ...] | None) -> None:
    chain = _chain(kind, eta, steps)
    offsets = gaussian.quadratic_offsets(chain, 0.8, 0.2, TAU)
    assert _optimise(chain, "quadratic", with_feedback=False)[0] == pytest.approx(offsets.value, abs=1e-7)
    feedback = gaussian.quadratic_feedback(chain, 0.8, 0.2, TAU)
    assert _optimise(chain, "quadratic", with_feedback=True)[0] == pytest.approx(feedback.value, abs=1e-7)
    assert gaussian.quadratic_tilt(chain, 0.8, 0.2, TAU).value >= feedback.value >= offsets.value


@pytest.mark.parametrize(("kind", "eta", "steps"), SAMPLERS)
def test_the_transition_is_the_chain_written_by_hand(kind: str, eta: float, steps: tuple[int, ...] | None) -> None:
    found = probe.sampler(kind, 10, 3.0, eta, MEAN, VAR, steps)
    exact = _chain(kind, eta, steps)
    for name in ("slope", "offset", "std", "gain"):
        assert_close(getattr(found, name), getattr(exact, name), atol=1e-12, rtol=0)


def test_simulated_moments_are_those_of_the_chain() -> None:
    levels = schedule.sigmas(10, 3.0)
    strengths = schedule.strengths(10, range(9), 0.7)
    x = rng.normal((20_000, 4), seed=1)
    for k in range(10):
        found = transition.step(
            "flow", x, gaussian.velocity(x, levels[k], MEAN, VAR), levels[k], levels[k + 1], strengths[k]
        )
        x = transition.draw(found, rng.normal(x.shape, seed=rng.seed_for(1, "step", k)))
    means, variances = gaussian.moments(_chain("flow", 0.7, None))
    assert x.mean().item() == pytest.approx(means[-1].item(), abs=0.01)
    assert x.var().item() == pytest.approx(variances[-1].item(), rel=0.02)


def test_the_clipped_loss_follows_the_exact_policy_gradient() -> None:
    # One update on groups of eight: minus the gradient is (G - 1) / G times the exact one over the group's own std.
    chain = _chain("flow", 0.7, (2,))
    levels = schedule.sigmas(10, 3.0, torch.float64)
    x = rng.normal((40_000, 1), seed=5, dtype=torch.float64)
    offset = torch.zeros((), dtype=torch.float64, requires_grad=True)
    log_ratio = torch.zeros(())
    for k in range(10):
        eta = 0.7 if k == 2 else 0.0
        velocity = gaussian.velocity(x, levels[k], MEAN, VAR)
        sampled = transition.step("flow", x, velocity, levels[k], levels[k + 1], eta)
        drawn = transition.draw(sampled, rng.normal(x.shape, seed=rng.seed_for(5, "step", k), dtype=torch.float64))
        if k == 2:
            policy = transition.step("flow", x, velocity + offset, levels[k], levels[k + 1], eta)
            log_ratio = transition.log_prob(policy, drawn) - transition.log_prob(sampled, drawn)
        x = drawn
    rewards_pg = (1.3 * x[:, 0]).reshape(-1, 8)
    found = advantage.group(rewards_pg, 0.0, scale="global").reshape(-1)
    (slope,) = torch.autograd.grad(policy_loss.clipped(log_ratio, found, 1e-4).mean(), offset)
    exact = 1.3 * gaussian.influence(chain)[2] * chain.gain[2] * 7 / 8
    pooled = rewards_pg.var(dim=1).mean().sqrt()
    assert (-slope * pooled).item() == pytest.approx(exact.item(), rel=0.05)


def test_without_a_penalty_a_linear_reward_has_no_fixed_point() -> None:
    chain = _chain("flow", 0.7, None)
    values = [gaussian.linear_optimum(chain, 1.3, tau).mean for tau in (1.0, 0.1, 0.01)]
    assert values[2] - values[1] > 5 * (values[1] - values[0])


def test_one_penalty_buys_different_shifts_in_different_samplers() -> None:
    shifts = [gaussian.spread(_chain(*sampler)).item() for sampler in SAMPLERS]
    assert max(shifts) / min(shifts) > 5
    assert max(shifts) < VAR
