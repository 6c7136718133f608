"""Losses on noised samples: values, gradients, rules 37 to 39, and where each ends on Gaussian data."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from reelign.core import flow, forward_loss, gaussian, policy_loss, preference_loss, rng

SHAPE = (4, 2, 3)
ELEMENTS = 6


def _normal(name: str, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return rng.normal(shape, seed=rng.seed_for(0, "forward", name), dtype=torch.float64)


def _slope(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    variable = at.clone().requires_grad_()
    return torch.autograd.grad(loss(variable).sum(), variable)[0]


def _wide(values: Tensor) -> Tensor:
    return flow.expand_to(values, torch.empty(SHAPE))


def _latents() -> tuple[Tensor, Tensor, Tensor]:
    return _normal("velocity"), _normal("sampled"), _normal("target")


R = torch.tensor([0.0, 0.3, 0.5, 1.0], dtype=torch.float64)
ADVANTAGE = torch.tensor([1.5, -0.5, 0.0, -1.0], dtype=torch.float64)
SIGMA = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)


def test_probability_has_the_papers_values() -> None:
    found = forward_loss.probability(torch.tensor([[-7.0, -5.0, -1.0], [0.0, 2.5, 9.0]]), 5.0)
    assert_close(found, torch.tensor([[0.0, 0.0, 0.4], [0.5, 0.75, 1.0]]))


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_units_must_be_positive(value: float) -> None:
    velocity, sampled, target = _latents()
    with pytest.raises(ValueError, match=rf"limit is {value}, but it must be positive"):
        forward_loss.probability(ADVANTAGE, value)
    with pytest.raises(ValueError, match=rf"beta is {value}, but it must be positive"):
        forward_loss.nft(velocity, sampled, target, R, value)


def test_the_good_and_the_bad_velocity_lie_on_both_sides_of_the_one_that_sampled() -> None:
    velocity, sampled, _ = _latents()
    good, bad = forward_loss.implicit_velocities(velocity, sampled, 0.3)
    assert_close((good + bad) / 2, sampled)
    assert_close(good - bad, 0.6 * (velocity - sampled))
    assert_close(forward_loss.implicit_velocities(velocity, sampled, 1.0)[0], velocity)


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.0])
def test_nft_is_a_pull_along_the_error_and_a_spring_to_the_policy_that_sampled(beta: float) -> None:
    velocity, sampled, target = _latents()
    moved, off = velocity - sampled, sampled - target
    constant, spring = flow.per_sample_mean(off**2) / beta, beta * flow.per_sample_mean(moved**2)
    expected = constant + 2 * (2 * R - 1) * flow.per_sample_mean(moved * off) + spring
    assert_close(forward_loss.nft(velocity, sampled, target, R, beta), expected)


def test_a_bad_sample_is_a_good_one_seen_from_the_other_side() -> None:
    velocity, sampled, target = _latents()
    for sigma in (None, SIGMA):
        found = forward_loss.nft(velocity, sampled, target, R, 0.7, sigma=sigma)
        turned = forward_loss.nft(2 * sampled - velocity, sampled, target, 1 - R, 0.7, sigma=sigma)
        assert_close(found, turned)


def test_the_self_normalised_error_is_that_of_the_clean_prediction() -> None:
    velocity, noise, x0 = _latents()
    x, target = flow.interpolate(x0, noise, SIGMA), flow.velocity_target(x0, noise)
    gap = x - _wide(SIGMA) * velocity - x0
    expected = flow.per_sample_mean(gap**2) / flow.per_sample_mean(gap.abs())
    assert_close(forward_loss.self_normalised(velocity, target, SIGMA), expected)
    assert_close(
        forward_loss.self_normalised(velocity, target, SIGMA[1])[1:2],
        forward_loss.self_normalised(velocity[1:2], target[1:2], SIGMA[1:2]),
    )


def test_a_perfect_prediction_has_a_finite_gradient() -> None:
    target = _normal("target")
    assert torch.equal(forward_loss.self_normalised(target, target, SIGMA), torch.zeros_like(SIGMA))
    assert torch.equal(
        _slope(lambda v: forward_loss.self_normalised(v, target, SIGMA), target), torch.zeros(SHAPE).double()
    )
    # An error of 1e-7 lies under the smallest unit, 1e-5.
    near = forward_loss.self_normalised(target + 1e-7, target, torch.ones_like(SIGMA))
    assert_close(near, torch.full_like(near, 1e-14 / 1e-5), atol=0, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(advantage=st.floats(-1e6, 1e6), limit=st.floats(1e-3, 1e3))
def test_rule_37_probabilities_stay_in_0_to_1_and_mirror_the_advantage(advantage: float, limit: float) -> None:
    both = forward_loss.probability(torch.tensor([advantage, -advantage]), limit)
    assert bool(((both >= 0) & (both <= 1)).all())
    assert_close(both.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("wrong", [-1e-3, 1.001, math.nan])
def test_rule_37_other_probabilities_are_refused(wrong: float) -> None:
    velocity, sampled, target = _latents()
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        forward_loss.nft(velocity, sampled, target, R.index_fill(0, torch.tensor([2]), wrong), 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_rule_37_where_the_policy_sampled_only_the_gradient_knows_the_probability(
    beta: float, dtype: torch.dtype
) -> None:
    sampled, target, chance = _normal("sampled").to(dtype), _normal("target").to(dtype), R.to(dtype)
    good, bad = forward_loss.implicit_velocities(sampled, sampled, beta)
    assert torch.equal(good, sampled)
    assert torch.equal(bad, sampled)
    error = flow.velocity_error(sampled, target)
    assert_close(forward_loss.nft(sampled, sampled, target, chance, beta), error / beta)
    found = _slope(lambda v: forward_loss.nft(v, sampled, target, chance, beta), sampled)
    # The loss is divided by beta, so the rule's 2 beta (2r - 1) (sampled - target) loses that factor.
    assert_close(found, _wide(2 * (2 * chance - 1)) * (sampled - target) / ELEMENTS)


@pytest.mark.parametrize("sigma", [None, SIGMA])
def test_rule_37_an_undecided_sample_gives_exactly_no_gradient(sigma: Tensor | None) -> None:
    sampled, target = _normal("sampled"), _normal("target")
    half = torch.full_like(R, 0.5)
    found = _slope(lambda v: forward_loss.nft(v, sampled, target, half, 0.3, sigma=sigma), sampled)
    assert torch.equal(found, torch.zeros_like(found))


def test_rule_38_the_curvature_is_the_anchor_plus_the_advantage() -> None:
    velocity, sampled, target = _latents()
    step, beta = 0.5 * torch.ones(SHAPE).double(), 1.2

    def loss(v: Tensor) -> Tensor:
        return forward_loss.anchored(v, sampled, target, ADVANTAGE, beta)

    bend = (loss(velocity + step) - 2 * loss(velocity) + loss(velocity - step)) / 0.5**2
    assert_close(bend, 2 * (beta + ADVANTAGE))
    lowest = (_wide(ADVANTAGE) * target + beta * sampled) / _wide(ADVANTAGE + beta)
    assert_close(_slope(loss, lowest), torch.zeros(SHAPE).double(), atol=1e-12, rtol=0)
    assert bool((loss(lowest) < loss(velocity)).all())


def test_rule_39_the_unit_of_an_error_is_a_constant_for_its_gradient() -> None:
    velocity, _, target = _latents()
    scale = flow.per_sample_mean((_wide(SIGMA) * (velocity - target)).abs())
    plain = _slope(lambda v: SIGMA**2 * flow.velocity_error(v, target), velocity)
    found = _slope(lambda v: forward_loss.self_normalised(v, target, SIGMA), velocity)
    assert_close(found, plain / _wide(scale))
    # The value is of degree 1 in the error; with a unit that moves along, this would be the value, not twice the value.
    along = (found * (velocity - target)).sum(dim=(1, 2))
    assert_close(along, 2 * forward_loss.self_normalised(velocity, target, SIGMA))


def test_rule_39_self_normalised_nft_scales_each_branch_by_its_own_unit() -> None:
    velocity, sampled, target = _latents()
    beta = 0.4
    good, bad = forward_loss.implicit_velocities(velocity, sampled, beta)
    near, far = (_wide(flow.per_sample_mean((_wide(SIGMA) * (v - target)).abs())) for v in (good, bad))
    expected = _wide(2 * SIGMA**2 / ELEMENTS) * (
        _wide(R) * (good - target) / near - _wide(1 - R) * (bad - target) / far
    )
    found = _slope(lambda v: forward_loss.nft(v, sampled, target, R, beta, sigma=SIGMA), velocity)
    assert_close(found, expected)


def test_the_log_ratio_starts_at_zero_and_falls_with_the_error() -> None:
    error, weight = torch.tensor([0.3, 0.5]), torch.tensor([2.0, 0.5])
    assert torch.equal(forward_loss.log_ratio(error, error, weight), torch.zeros(2))
    assert_close(forward_loss.log_ratio(error + 0.1, error, weight), torch.tensor([-0.2, -0.05]))
    assert_close(forward_loss.log_ratio(error - 0.1, error, 3.0), torch.tensor([0.3, 0.3]))


def test_divergence_is_the_mean_square_of_the_gap() -> None:
    velocity, other, _ = _latents()
    assert torch.equal(forward_loss.divergence(velocity, velocity), torch.zeros(4).double())
    assert_close(forward_loss.divergence(velocity, other), (velocity - other).square().mean(dim=(1, 2)))
    assert_close(_slope(lambda v: forward_loss.divergence(v, other), velocity), 2 * (velocity - other) / ELEMENTS)


Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


def _grouped(loss: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    def objective(velocity: Tensor, sampled: Tensor, target: Tensor) -> Tensor:
        policy, old = flow.velocity_error(velocity, target)[None], flow.velocity_error(sampled, target)[None]
        return loss(policy, old)

    return objective


def _surrogate(velocity: Tensor, sampled: Tensor, target: Tensor) -> Tensor:
    policy, old = flow.velocity_error(velocity, target), flow.velocity_error(sampled, target)
    return policy_loss.clipped(forward_loss.log_ratio(policy, old, 1.0), ADVANTAGE, 1e-4)


def _nft(velocity: Tensor, sampled: Tensor, target: Tensor) -> Tensor:
    return forward_loss.nft(velocity, sampled, target, forward_loss.probability(ADVANTAGE, 2.0), 0.3)


OBJECTIVES: dict[str, tuple[Objective, float]] = {
    "nft": (_nft, 2 / 2.0),
    "awm, ratio": (_surrogate, 2),
    "awm, anchored": (lambda v, old, u: forward_loss.anchored(v, old, u, ADVANTAGE, 1.5), 2),
    "crd": (_grouped(lambda policy, old: forward_loss.crd(policy, old, ADVANTAGE[None], 0.7)), 4 * 0.7),
    "dgpo": (_grouped(lambda policy, old: forward_loss.dgpo(policy, old, ADVANTAGE[None], 30.0)), 2 * 0.5),
}
"""Objectives, and their first gradient in units of advantage times error over the number of elements."""


@pytest.mark.parametrize("name", OBJECTIVES)
def test_all_start_with_the_policy_gradient(name: str) -> None:
    sampled, target = _normal("sampled"), _normal("target")
    loss, factor = OBJECTIVES[name]
    found = _slope(lambda v: loss(v, sampled, target), sampled)
    assert_close(found, factor * _wide(ADVANTAGE) * (sampled - target) / ELEMENTS)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_descent_makes_good_samples_likelier_and_bad_ones_less_so(name: str) -> None:
    sampled, target = _normal("sampled"), _normal("target")
    loss = OBJECTIVES[name][0]
    stepped = sampled - 1e-3 * _slope(lambda v: loss(v, sampled, target), sampled)
    change = flow.velocity_error(stepped, target) - flow.velocity_error(sampled, target)
    assert torch.equal(change.sign(), -ADVANTAGE.sign())


@pytest.mark.parametrize("name", ["nft", "awm, ratio", "awm, anchored"])
def test_a_sample_does_not_depend_on_its_neighbours(name: str) -> None:
    velocity, sampled, target = _latents()
    whole = OBJECTIVES[name][0](velocity, sampled, target)
    others = (torch.arange(4)[:, None, None] != 1).double()
    changed = OBJECTIVES[name][0](velocity + others, sampled - others, target)
    assert torch.equal(whole[1], changed[1])
    assert whole.shape == (4,)


def _errors(name: str) -> Tensor:
    return _normal(name, (3, 5)).abs()


CENTRED = _normal("advantage", (3, 5)) - _normal("advantage", (3, 5)).mean(dim=1, keepdim=True)


def test_the_implicit_reward_is_relative_to_the_group() -> None:
    policy, sampled = _errors("policy"), _errors("sampled")
    found = forward_loss.implicit_reward(policy, sampled)
    assert_close(found.mean(dim=1), torch.zeros(3).double(), atol=1e-12, rtol=0)
    assert_close(found[:, 0] - found[:, 1], (sampled - policy)[:, 0] - (sampled - policy)[:, 1])
    assert_close(forward_loss.implicit_reward(policy + torch.arange(3)[:, None], sampled), found)
    assert torch.equal(forward_loss.implicit_reward(sampled, sampled), torch.zeros(3, 5).double())


def test_crd_ends_where_the_implicit_reward_is_the_advantage() -> None:
    sampled, beta = _errors("sampled"), 7.0
    policy = sampled - CENTRED / beta + 0.3
    found = forward_loss.crd(policy, sampled, CENTRED + 2.0, beta)
    assert_close(found, torch.zeros(3, 5).double(), atol=1e-12, rtol=0)
    at_start = forward_loss.crd(sampled, sampled, CENTRED, beta)
    assert_close(at_start, CENTRED**2)


def test_the_gradient_of_crd_is_its_residual() -> None:
    policy, sampled, beta = _errors("policy"), _errors("sampled"), 7.0
    residual = beta * forward_loss.implicit_reward(policy, sampled) - CENTRED
    assert_close(_slope(lambda e: forward_loss.crd(e, sampled, CENTRED, beta), policy), -2 * beta * residual)


def test_the_weight_of_a_group_is_one_half_at_the_reference_and_falls_with_success() -> None:
    reference = _errors("reference")
    half = forward_loss.group_weight(reference, reference, CENTRED, 80.0)
    assert torch.equal(half, torch.full((3,), 0.5).double())
    learned = forward_loss.group_weight(reference - 0.01 * CENTRED, reference, CENTRED, 80.0)
    spoiled = forward_loss.group_weight(reference + 0.01 * CENTRED, reference, CENTRED, 80.0)
    assert bool((learned < 0.5).all())
    assert_close(learned + spoiled, torch.ones(3).double())
    assert not forward_loss.group_weight(reference.requires_grad_(), reference, CENTRED, 80.0).requires_grad


def test_dgpo_has_the_gradient_of_its_logistic_loss() -> None:
    policy, reference, beta = _errors("policy"), _errors("reference"), 20.0

    def logistic(error: Tensor) -> Tensor:
        return -torch.nn.functional.logsigmoid(-beta * (CENTRED * (error - reference)).mean(dim=1))

    found = _slope(lambda e: forward_loss.dgpo(e, reference, CENTRED, beta).mean(dim=1), policy)
    assert_close(beta * found, _slope(logistic, policy))


def test_dgpo_on_a_pair_is_flow_dpo() -> None:
    policy, reference, beta = _errors("policy")[:, :2], _errors("reference")[:, :2], 20.0
    signs = torch.tensor([[1.0, -1.0]]).double().expand(3, 2)

    def pairwise(error: Tensor) -> Tensor:
        return preference_loss.flow_dpo(error[:, 0], error[:, 1], reference[:, 0], reference[:, 1], beta)

    found = _slope(lambda e: forward_loss.dgpo(e, reference, signs, beta).mean(dim=1), policy)
    assert_close(beta * found, _slope(pairwise, policy))


MEAN, VAR, K = 0.4, 0.8, 0.6
LEVELS = torch.tensor([0.2, 0.45, 0.8])
N = 2**18
"""Draws per level. An estimated offset has a standard error of 1.7 / sqrt(N) at most, a third of the tolerance 1e-2."""


def _spread() -> Tensor:
    return gaussian.marginal_var(LEVELS, VAR)


def _tilt(tau: float) -> Tensor:
    """Offset per level of the data tilted by ``exp(K x0 / tau)``."""
    return -LEVELS * VAR / _spread() * K / tau


def _ends(loss: Callable[..., Tensor], *, elements: int = 1, members: int = 1, shared: bool = False) -> Tensor:
    """The offset per level at which a loss on drawn samples stops falling.

    Every loss here is a parabola in each offset, so its slopes at 0 and 1 tell where it is lowest.
    """
    clean = rng.normal((3 * N, elements), seed=rng.seed_for(0, "forward", "x0"))
    noise = rng.normal((3 * N, elements), seed=rng.seed_for(0, "forward", "noise"))
    if shared:
        noise = noise[::members].repeat_interleave(members, dim=0)
    x0 = MEAN + math.sqrt(VAR) * clean
    sigma = LEVELS.repeat_interleave(N)
    sampled = gaussian.velocity(flow.interpolate(x0, noise, sigma), sigma, MEAN, VAR)
    target, advantage = flow.velocity_target(x0, noise), K * (x0 - MEAN).sum(dim=1)

    def slope(at: float) -> Tensor:
        def total(offset: Tensor) -> Tensor:
            velocity = sampled + offset.repeat_interleave(N)[:, None]
            return loss(velocity, sampled, target, advantage)

        return _slope(total, torch.full((3,), at))

    return slope(0.0) / (slope(0.0) - slope(1.0))


@pytest.mark.parametrize(("beta", "limit"), [(1.0, 3.0), (2.0, 3.0), (0.5, 4.0)])
def test_nft_ends_at_the_tilt_whose_temperature_is_beta_times_limit(beta: float, limit: float) -> None:
    def loss(velocity: Tensor, sampled: Tensor, target: Tensor, advantage: Tensor) -> Tensor:
        # A limit of 3 is more than five standard deviations of the advantage, so nothing is clipped.
        return forward_loss.nft(velocity, sampled, target, forward_loss.probability(advantage, limit), beta)

    assert_close(_ends(loss), _tilt(beta * limit), atol=1e-2 / (beta * limit), rtol=0)


@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_anchored_matching_ends_at_the_tilt_if_one_offset_serves_all_latents(beta: float) -> None:
    found = _ends(lambda v, old, u, advantage: forward_loss.anchored(v, old, u, advantage, beta))
    assert_close(found, _tilt(beta), atol=1e-2 / beta, rtol=0)


@pytest.mark.parametrize(("x", "expected"), [(0.3, -0.463898), (0.22, -0.485939)])
def test_anchored_matching_ends_elsewhere_at_each_latent(x: float, expected: float) -> None:
    """Behind ``x`` the mean advantage is 0 at ``x = (1 - sigma) m`` only."""
    at, level = torch.full((N, 1), x), torch.tensor(0.45)
    centre, var = gaussian.posterior(at, level, MEAN, VAR)
    half = rng.normal((N // 2, 1), seed=rng.seed_for(0, "forward", "posterior"))
    x0 = centre + var.sqrt() * torch.cat([half, -half])
    target, sampled = flow.velocity_target(x0, (at - 0.55 * x0) / 0.45), gaussian.velocity(at, level, MEAN, VAR)
    advantage = K * (x0[:, 0] - MEAN)

    def slope(offset: float) -> Tensor:
        return _slope(
            lambda d: forward_loss.anchored(sampled + d, sampled, target, advantage, 1.0), torch.tensor(offset)
        )

    found = slope(0.0) / (slope(0.0) - slope(1.0))
    assert_close(found, torch.tensor(expected), atol=1e-2, rtol=0)


def _crd(beta: float, members: int) -> Callable[..., Tensor]:
    def loss(velocity: Tensor, sampled: Tensor, target: Tensor, advantage: Tensor) -> Tensor:
        policy, old = flow.velocity_error(velocity, target), flow.velocity_error(sampled, target)
        rows = (values.reshape(-1, members) for values in (policy, old, advantage))
        return forward_loss.crd(*rows, beta)

    return loss


@pytest.mark.parametrize(("members", "elements", "beta"), [(2, 1, 1.0), (8, 1, 1.0), (8, 1, 3.0), (4, 4, 1.0)])
def test_crd_with_separate_noises_ends_at_a_regression_slope(members: int, elements: int, beta: float) -> None:
    """``-sigma K elements / (2 beta)`` per element, whatever the data's variance and the size of groups.

    With ``e = target - sampled`` the error of ``sampled + d`` changes by ``d^2 - 2 d mean(e)``. Within a group d^2
    cancels, so the centred reward is ``psi = 2 d (mean(e) - its group mean)`` and ``E (beta psi - A)^2`` is least at
    ``2 beta d = Cov(mean(e), A) / Var(mean(e))``. On Gaussian data ``e = ((1 - sigma) var noise - sigma (x0 - m)) / S``
    with ``S = (1 - sigma)^2 var + sigma^2``, so that per element ``Cov(e, K x0) = -sigma K var / S`` and
    ``Var(e) = var / S``. Centring multiplies both by ``(g - 1) / g``; the mean over elements divides the covariance by
    nothing and the variance by their number.
    """
    found = _ends(_crd(beta, members), elements=elements, members=members)
    assert_close(found, -LEVELS * K * elements / (2 * beta), atol=1e-2 * elements / beta, rtol=0)


@pytest.mark.parametrize(("members", "beta"), [(2, 1.0), (8, 1.0), (8, 3.0)])
def test_crd_with_shared_noise_reaches_the_advantage_exactly(members: int, beta: float) -> None:
    """``-K S / (2 beta sigma)``: the noise cancels within a group, ``e`` is linear in the advantage, the rest is 0."""
    found = _ends(_crd(beta, members), members=members, shared=True)
    # Float32 errors are all that is left.
    assert_close(found, -K * _spread() / (2 * beta * LEVELS), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("offset", [0.0, -1.0, -5.0, -20.0])
def test_dgpo_with_shared_noise_pulls_without_end(offset: float) -> None:
    """Its logistic loss falls for ever: the weight's exponent has the sign of the offset in every group."""
    x0 = MEAN + math.sqrt(VAR) * _normal("x0", (64, 1))
    sigma = torch.tensor(0.45).double()
    noise = _normal("noise", (16, 1)).repeat_interleave(4, dim=0)
    sampled = gaussian.velocity(flow.interpolate(x0, noise, sigma), sigma, MEAN, VAR)
    target = flow.velocity_target(x0, noise)
    advantage = K * (x0 - MEAN).reshape(16, 4)
    centred = advantage - advantage.mean(dim=1, keepdim=True)

    def loss(d: Tensor) -> Tensor:
        policy, old = (flow.velocity_error(v, target).reshape(16, 4) for v in (sampled + d, sampled))
        return forward_loss.dgpo(policy, old, centred, 1.0)

    assert _slope(loss, torch.tensor(offset).double()) > 0
