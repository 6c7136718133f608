"""BPGO's scales: the values worked out by hand, their order, and where they must not be used."""

import pytest
import torch
from torch.testing import assert_close

from reelign.core import trust


def _row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("reward", "prior", "expected"),
    [
        (1.0, 0.5, 4.07742274),
        (0.1, 0.5, -0.44206837),
        (0.5, 0.5, 0.0),
        (-1.0, 0.5, -0.55181916),
        (-3.0, 0.5, -0.17425474),
        (-1.2, 0.42, -0.48793462),
        (-0.3, 0.42, -0.53338912),
        (0.4, 0.42, -0.02983649),
        (1.1, 0.42, 5.04699892),
    ],
)
def test_contrast_has_the_papers_values(reward: float, prior: float, expected: float) -> None:
    found = trust.contrast(_row(reward), torch.tensor([prior], dtype=torch.float64))
    assert_close(found.item(), expected, atol=1e-8, rtol=1e-7)


@pytest.mark.parametrize(
    ("reward", "prior", "expected"),
    [
        (1.0, 0.5, 14.29568393),
        (0.1, 0.5, -1.00999967),
        (0.5, 0.5, 0.0),
        (0.4, 0.42, -0.20799574),
        (1.1, 0.42, 21.35900055),
    ],
)
def test_the_released_contrast_has_its_values(reward: float, prior: float, expected: float) -> None:
    found = trust.contrast_released(_row(reward), torch.tensor([prior], dtype=torch.float64))
    assert_close(found.item(), expected, atol=1e-8, rtol=1e-7)


def test_the_released_contrast_refuses_what_it_would_turn_around() -> None:
    with pytest.raises(ValueError, match=r"a reward is -1\.2, but this form turns the order"):
        trust.contrast_released(_row(-1.2, 1.1), torch.tensor([0.42], dtype=torch.float64))


def test_contrast_keeps_the_order_of_rewards_down_to_one_below_the_prior() -> None:
    prior = torch.tensor([0.5])
    rewards = torch.linspace(-0.5, 2.0, 200)[None]
    assert bool((trust.contrast(rewards, prior).diff() > 0).all())
    below = torch.linspace(-4.0, -0.5, 200)[None]
    assert bool((trust.contrast(below, prior).diff() < 0).any())


@pytest.mark.parametrize(
    ("apart", "strength", "slope", "expected"),
    [(1.0, 0.5, 1.0, 1.23105858), (-0.3, 0.5, 1.0, 0.92555748), (-0.3, 0.5, 5.0, 0.68242552), (0.0, 0.9, 3.0, 1.0)],
)
def test_reliability_has_the_papers_values(apart: float, strength: float, slope: float, expected: float) -> None:
    rewards = _row(apart - 0.2, apart + 0.2)
    found = trust.reliability(rewards, torch.zeros(1, dtype=torch.float64), strength=strength, slope=slope)
    assert_close(found.item(), expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("rewards", "prior", "expected", "tolerance"),
    [
        ((0.1, 0.5, 0.9), 0.45, 1.08353841, 1e-7),
        ((0.1, 0.5, 0.9), 0.6, 0.83654610, 1e-7),
        ((4.0, 5.0, 6.0), 0.0, 1.5, 1e-12),
        ((0.5,), 0.0, 1.13816320, 1e-7),
    ],
)
def test_the_released_reliability_has_its_values(
    rewards: tuple[float, ...], prior: float, expected: float, tolerance: float
) -> None:
    found = trust.reliability_released(_row(*rewards), torch.tensor([prior], dtype=torch.float64))
    assert_close(found.item(), expected, atol=tolerance, rtol=0)


def test_reliability_stays_in_its_range_and_never_turns_a_sign() -> None:
    rewards = 100 * torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    found = trust.reliability(rewards, torch.zeros(64), strength=0.5)
    assert bool(((found >= 0.5) & (found <= 1.5)).all())
    with pytest.raises(ValueError, match=r"strength is 1\.0"):
        trust.reliability(rewards, torch.zeros(64), strength=1.0)
