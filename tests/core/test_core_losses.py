"""Surrogate, preference and comparison losses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from reelign.core import policy_loss, preference_loss, reward_loss


@settings(max_examples=40, deadline=None)
@given(log_ratio=st.floats(-2, 2), advantage=st.floats(-5, 5), clip=st.floats(0.01, 0.9))
def test_the_clipped_loss_never_promises_more_than_the_plain_one(
    log_ratio: float, advantage: float, clip: float
) -> None:
    found = policy_loss.clipped(torch.tensor([log_ratio]), torch.tensor([advantage]), clip)
    assert found.item() >= -advantage * math.exp(log_ratio) - 1e-4


def test_the_clip_removes_the_outward_gradient_and_keeps_the_inward_one() -> None:
    log_ratio = torch.tensor([1.3, 0.7, 1.3, 0.7]).log().requires_grad_()
    loss = policy_loss.clipped(log_ratio, torch.tensor([1.0, -1.0, -1.0, 1.0]), 0.2)
    (slope,) = torch.autograd.grad(loss.sum(), log_ratio)
    assert slope[:2].tolist() == [0.0, 0.0]
    assert_close(slope[2:], torch.tensor([1.3, -0.7]))


def test_a_scalar_advantage_per_sample_serves_every_place() -> None:
    log_ratio, advantage = torch.randn(2, 3, 4, 4) * 0.1, torch.tensor([1.0, -2.0])
    dense = advantage.reshape(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert torch.equal(
        policy_loss.clipped(log_ratio, advantage, 0.1), policy_loss.clipped(log_ratio, dense.contiguous(), 0.1)
    )


@pytest.mark.parametrize(("ratio", "advantage"), [((3,), (3, 1)), ((3,), (1,)), ((2, 3), (3,)), ((2, 3), (2, 1))])
def test_other_broadcasts_are_refused(ratio: tuple[int, ...], advantage: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        policy_loss.clipped(torch.zeros(ratio), torch.zeros(advantage), 0.2)
    with pytest.raises(ValueError, match="does not fit"):
        policy_loss.diagnostics(torch.zeros(ratio), torch.zeros(advantage), 0.2)


def test_a_clip_range_must_be_positive() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        policy_loss.clipped(torch.zeros(1), torch.zeros(1), 0.0)


def test_diagnostics_split_clipping_by_the_sign_of_the_advantage() -> None:
    log_ratio = torch.tensor([1.5, 0.5, 1.5, 0.5]).log()
    found = policy_loss.diagnostics(log_ratio, torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2)
    assert found["clip_frac"] == 1
    assert found["clip_frac_positive"] == 0.5
    assert found["clip_frac_negative"] == 0.5
    assert found["below_one"] == 0.5
    assert all(value.ndim == 0 and not value.requires_grad for value in found.values())


def test_diagnostics_of_one_sided_advantages_are_finite() -> None:
    found = policy_loss.diagnostics(torch.zeros(1), torch.ones(1), 0.2)
    assert all(bool(torch.isfinite(value)) for value in found.values())
    assert found["clip_frac_negative"] == 0
    assert found["ess"] == 1


def _errors(seed: int = 0) -> list[torch.Tensor]:
    return list(torch.rand(4, 5, generator=torch.Generator().manual_seed(seed)))


def test_swapping_winner_and_loser_negates_the_margin() -> None:
    a, b, c, d = _errors()
    assert_close(preference_loss.margin(a, b, c, d, 7.0), -preference_loss.margin(b, a, d, c, 7.0))


def test_a_better_winner_lowers_the_loss() -> None:
    a, b, c, d = _errors()
    worse = preference_loss.flow_dpo(a, b, c, d, 7.0)
    assert bool((preference_loss.flow_dpo(a - 0.1, b, c, d, 7.0) < worse).all())


def test_kappa_is_the_derivative_of_the_loss() -> None:
    a, b, c, d = _errors()
    a.requires_grad_()
    b.requires_grad_()
    slopes = torch.autograd.grad(preference_loss.flow_dpo(a, b, c, d, 30.0).sum(), (a, b))
    kappa = preference_loss.kappa(preference_loss.margin(a, b, c, d, 30.0).detach(), 30.0)
    assert_close(slopes[0], kappa)
    assert_close(slopes[1], -kappa)


def test_beta_may_differ_between_pairs() -> None:
    a, b, c, d = _errors()
    beta = torch.linspace(1, 5, 5)
    found = preference_loss.flow_dpo(a, b, c, d, beta)
    assert_close(found[2:3], preference_loss.flow_dpo(a[2:3], b[2:3], c[2:3], d[2:3], 3.0))


def test_an_extreme_margin_stays_finite() -> None:
    one = torch.ones(1)
    found = preference_loss.flow_dpo(one, 0 * one, 0 * one, 0 * one, 5000.0)
    assert found.item() == pytest.approx(2500)


@settings(max_examples=30, deadline=None)
@given(a=st.floats(-4, 4), b=st.floats(-4, 4), theta=st.floats(1.0, 8.0))
def test_win_tie_and_loss_exhaust_the_outcomes(a: float, b: float, theta: float) -> None:
    scores = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    total = sum(part.exp() for part in reward_loss.outcome_log_probs(*scores, theta))
    assert_close(total, torch.ones(1, dtype=torch.float64))


def test_without_ties_it_is_bradley_terry() -> None:
    a, b = torch.tensor([1.0, -0.3]), torch.tensor([0.2, 0.9])
    found = reward_loss.bradley_terry(a, b, torch.tensor([1, -1]), 1.0)
    assert_close(found, -torch.nn.functional.logsigmoid(torch.tensor([0.8, 1.2])))


def test_a_tie_pulls_scores_together_and_a_win_apart() -> None:
    a = torch.tensor([1.0, 1.0], requires_grad=True)
    loss = reward_loss.bradley_terry(a, torch.zeros(2), torch.tensor([0, 1]))
    (slope,) = torch.autograd.grad(loss.sum(), a)
    assert slope[0] > 0 > slope[1]


def test_impossible_comparisons_are_refused() -> None:
    zero = torch.zeros(1)
    with pytest.raises(ValueError, match="at least 1"):
        reward_loss.outcome_log_probs(zero, zero, 0.5)
    with pytest.raises(ValueError, match="must be 1"):
        reward_loss.bradley_terry(zero, zero, torch.tensor([2]))
    with pytest.raises(ValueError, match="no room for ties"):
        reward_loss.bradley_terry(zero, zero, torch.tensor([0]), 1.0)
