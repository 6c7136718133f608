"""Preference pairs on Gaussian data."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reelign.core import flow, gaussian, preference_loss, rng

MEAN, VAR = 0.4, 0.8


def _errors(h: float, x0: Tensor, noise: Tensor, level: float) -> tuple[Tensor, Tensor]:
    sigma = torch.tensor(level, dtype=torch.float64)
    x, target = flow.interpolate(x0, noise, sigma), flow.velocity_target(x0, noise)
    policy = flow.velocity_error(gaussian.velocity(x, sigma, MEAN + VAR * h, VAR), target)
    return policy, flow.velocity_error(gaussian.velocity(x, sigma, MEAN, VAR), target)


def _margin(h: float, winner: Tensor, loser: Tensor, noise_w: Tensor, noise_l: Tensor, beta: float = 2.0) -> Tensor:
    policy_w, reference_w = _errors(h, winner, noise_w, 0.35)
    policy_l, reference_l = _errors(h, loser, noise_l, 0.35)
    return preference_loss.margin(policy_w, policy_l, reference_w, reference_l, beta)


def _pairs(elements: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draws = rng.normal((4, 256, elements), seed=elements, dtype=torch.float64)
    winner, loser, noise, other = draws
    return MEAN + math.sqrt(VAR) * winner, MEAN + math.sqrt(VAR) * loser, noise, other


def test_rule_40_the_margin_does_not_depend_on_shared_noise() -> None:
    winner, loser, noise, other = _pairs(1)
    assert_close(_margin(0.6, winner, loser, noise, noise), _margin(0.6, winner, loser, other, other))


def test_rule_40_separate_noise_drowns_the_margin() -> None:
    winner, loser, noise, other = _pairs(1)
    shared, separate = _margin(0.6, winner, loser, noise, noise), _margin(0.6, winner, loser, noise, other)
    assert (separate - shared).std() > shared.std()


def test_rule_40_at_the_reference_the_margin_is_zero_and_the_loss_ln_2() -> None:
    winner, loser, noise, _ = _pairs(3)
    inside = _margin(0.0, winner, loser, noise, noise)
    assert torch.equal(inside, torch.zeros_like(inside))
    policy_w, reference_w = _errors(0.0, winner, noise, 0.35)
    policy_l, reference_l = _errors(0.0, loser, noise, 0.35)
    loss = preference_loss.flow_dpo(policy_w, policy_l, reference_w, reference_l, 5000.0)
    assert_close(loss, torch.full_like(loss, math.log(2)))


def test_rule_41_mean_errors_make_beta_independent_of_the_resolution() -> None:
    winner, loser, noise, _ = _pairs(5)
    tiled = [part.repeat(1, 7) for part in (winner, loser, noise)]
    assert_close(_margin(0.6, winner, loser, noise, noise), _margin(0.6, tiled[0], tiled[1], tiled[2], tiled[2]))


def test_rule_41_summed_errors_would_need_beta_divided_by_the_number_of_elements() -> None:
    winner, loser, noise, _ = _pairs(5)
    per_element = [_margin(0.6, winner[:, [i]], loser[:, [i]], noise[:, [i]], noise[:, [i]]) for i in range(5)]
    mean = _margin(0.6, winner, loser, noise, noise, beta=2.0 * 5)
    assert_close(torch.stack(per_element).sum(dim=0), mean)


def test_a_growing_margin_can_hide_a_falling_winner() -> None:
    # Why winner and loser terms are logged apart: a poor winner becomes less likely while the margin is positive.
    h, winner = 0.6, MEAN + 0.1
    assert h * (winner - MEAN) - h * h * VAR / 2 < 0
    one = torch.ones(1, 1, dtype=torch.float64)
    assert _margin(h, winner * one, (winner - 1) * one, 0 * one, 0 * one).item() > 0


@pytest.mark.parametrize("level", [0.2, 0.5, 0.8])
def test_the_margin_has_its_closed_form_at_every_level(level: float) -> None:
    winner, loser, noise, _ = _pairs(1)
    policy_w, reference_w = _errors(0.6, winner, noise, level)
    policy_l, reference_l = _errors(0.6, loser, noise, level)
    found = preference_loss.margin(policy_w, policy_l, reference_w, reference_l, 2.0)
    spread = (1 - level) ** 2 * VAR + level**2
    assert_close(found, 2.0 * 0.6 * VAR * level**2 / spread**2 * (winner - loser)[:, 0])
