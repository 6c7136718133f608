"""One reverse step: rates, means, widths, densities, divergences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from reelign.core import transition

NOISY = (*transition.SDE_KINDS, "cps")


def _case(b: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, velocity = torch.randn(2, b, 4, 2, 3, 3, generator=generator)
    return x, velocity, torch.linspace(0.9, 0.5, b), torch.linspace(0.8, 0.3, b)


@pytest.mark.parametrize("kind", transition.KINDS)
def test_a_step_has_one_mean_per_element_and_one_std_per_sample(kind: str) -> None:
    x, velocity, sigma, after = _case()
    found = transition.step(kind, x, velocity, sigma, after, 0.5)
    assert found.mean.shape == x.shape
    assert found.std.shape == (3,)
    assert found.mean.dtype == found.std.dtype == torch.float32


@pytest.mark.parametrize("kind", transition.KINDS)
def test_scalar_levels_and_strengths_equal_repeated_ones_bit_for_bit(kind: str) -> None:
    x, velocity, _, _ = _case()
    scalar = transition.step(kind, x, velocity, torch.tensor(0.7), torch.tensor(0.6), 0.5)
    levels = (torch.full((3,), 0.7), torch.full((3,), 0.6))
    each = transition.step(kind, x, velocity, *levels, torch.full((3,), 0.5))
    assert torch.equal(scalar.mean, each.mean)
    assert torch.equal(scalar.std, each.std)


@pytest.mark.parametrize("kind", NOISY)
def test_a_sample_does_not_depend_on_its_neighbours(kind: str) -> None:
    x, velocity, sigma, after = _case()
    together = transition.step(kind, x, velocity, sigma, after, 0.5)
    alone = transition.step(kind, x[1:2], velocity[1:2], sigma[1:2], after[1:2], 0.5)
    assert torch.equal(together.mean[1:2], alone.mean)
    assert torch.equal(together.std[1:2], alone.std)


@pytest.mark.parametrize("kind", NOISY)
def test_deterministic_and_stochastic_samples_can_share_a_batch(kind: str) -> None:
    x, velocity, sigma, after = _case()
    found = transition.step(kind, x, velocity, sigma, after, torch.tensor([0.5, 0.0, 0.5]))
    euler = transition.ode_step(x, velocity, sigma, after)
    assert torch.equal(found.mean[1], euler.mean[1])
    assert found.std[1] == 0
    assert bool((found.std[[0, 2]] > 0).all())


@pytest.mark.parametrize("kind", transition.SDE_KINDS)
def test_sde_kinds_differ_in_their_rate_only(kind: str) -> None:
    x, velocity, sigma, after = _case()
    g = transition.rate(kind, sigma, after, 0.5)
    by_hand = transition.sde_step(x, velocity, sigma, after, g)
    found = transition.step(kind, x, velocity, sigma, after, 0.5)
    assert torch.equal(found.mean, by_hand.mean)
    assert_close(found.std, g * (sigma - after).sqrt())


def test_the_flow_rate_is_one_at_one_half_two_at_four_fifths() -> None:
    levels = torch.tensor([0.5, 0.8])
    assert_close(transition.rate("flow", levels, levels - 0.1, 1.0), torch.tensor([1.0, 2.0]))


def test_flow_and_dance_agree_at_one_half() -> None:
    level, after = torch.tensor([0.5]), torch.tensor([0.4])
    assert_close(transition.rate("flow", level, after, 0.3), transition.rate("dance", level, after, 0.3))


@settings(max_examples=20, deadline=None)
@given(after=st.floats(0.05, 0.99), eta=st.floats(0.01, 1.5))
def test_the_first_flow_step_has_std_eta_on_any_schedule(after: float, eta: float) -> None:
    one = torch.ones(1, dtype=torch.float64)
    found = transition.step("flow", one[:, None], one[:, None], one, one * after, eta)
    assert found.std.item() == pytest.approx(eta, rel=1e-9)


def test_the_flash_rate_is_the_noise_level() -> None:
    levels = torch.tensor([1.0, 0.5])
    assert_close(transition.rate("flash", levels, levels - 0.1, 2.0), torch.tensor([2.0, 1.0]))


def test_longcat_is_flow_until_its_std_reaches_the_cap() -> None:
    sigma, after = torch.tensor([0.95, 0.5]), torch.tensor([0.85, 0.45])
    x = torch.zeros(2, 1)
    found = transition.step("longcat", x, x, sigma, after, 1.0)
    flow_std = transition.step("flow", x, x, sigma, after, 1.0).std
    assert found.std[0].item() == pytest.approx(transition.LONGCAT_STD_MAX)
    assert_close(found.std[1], flow_std[1])


def test_a_rate_at_the_pole_is_refused() -> None:
    with pytest.raises(ValueError, match="infinite"):
        transition.rate("flow", torch.ones(1), torch.ones(1), 0.7)


@pytest.mark.parametrize("kind", NOISY)
def test_noise_in_a_step_that_ends_on_data_is_refused(kind: str) -> None:
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="sigma = 0"):
        transition.step(kind, x, x, torch.full((1,), 0.2), torch.zeros(1), 0.5)
    last = transition.step(kind, x, x, torch.full((1,), 0.2), torch.zeros(1), 0.0)
    assert last.std.item() == 0


def test_unknown_names_list_the_known_ones() -> None:
    x, velocity, sigma, after = _case()
    with pytest.raises(ValueError, match=r"'euler'.*ode, flow"):
        transition.step("euler", x, velocity, sigma, after)
    with pytest.raises(ValueError, match=r"'cps'.*flow, dance"):
        transition.rate("cps", sigma, after, 0.5)


@pytest.mark.parametrize("kind", transition.KINDS)
def test_the_gain_is_the_derivative_of_the_mean(kind: str) -> None:
    sigma, after = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.55], dtype=torch.float64)
    velocity = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    found = transition.step(kind, torch.ones(1, 1, dtype=torch.float64), velocity, sigma, after, 0.6)
    (slope,) = torch.autograd.grad(found.mean.sum(), velocity)
    assert_close(slope[:, 0], transition.gain(kind, sigma, after, 0.6))


def test_log_prob_is_torchs_gaussian_averaged() -> None:
    x, velocity, sigma, after = _case()
    found = transition.step("flow", x, velocity, sigma, after, 0.5)
    drawn = transition.draw(found, torch.randn_like(x))
    exact = torch.distributions.Normal(found.mean, found.std.reshape(-1, 1, 1, 1, 1)).log_prob(drawn)
    assert_close(transition.log_prob(found, drawn), exact.flatten(1).mean(dim=1))
    assert_close(transition.log_prob_dense(found, drawn), exact.sum(dim=1))


def test_no_gradient_runs_through_the_draw() -> None:
    mean = torch.zeros(1, 2, requires_grad=True)
    found = transition.Transition(mean, torch.ones(1))
    drawn = transition.draw(found, torch.ones(1, 2))
    (slope,) = torch.autograd.grad(transition.log_prob(found, drawn).sum(), mean)
    assert_close(slope, torch.full((1, 2), 0.5))


def test_a_density_needs_a_width() -> None:
    x, velocity, sigma, after = _case()
    found = transition.ode_step(x, velocity, sigma, after)
    for density in (transition.log_prob, transition.log_prob_dense):
        with pytest.raises(ValueError, match="std 0"):
            density(found, x)
    with pytest.raises(ValueError, match="std 0"):
        transition.step_kl(found, found)


def test_a_divergence_between_different_kernels_is_refused() -> None:
    x, velocity, sigma, after = _case()
    a, b = (transition.step("dance", x, velocity, sigma, after, eta) for eta in (0.3, 0.4))
    with pytest.raises(ValueError, match="different std"):
        transition.step_kl(a, b)


def test_the_divergence_is_torchs() -> None:
    x, velocity, sigma, after = _case()
    a, b = (transition.step("flow", x, v, sigma, after, 0.5) for v in (velocity, velocity + 0.1))
    std = a.std.reshape(-1, 1, 1, 1, 1)
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(a.mean, std), torch.distributions.Normal(b.mean, std)
    )
    assert_close(transition.step_kl(a, b), exact.flatten(1).mean(dim=1))


def test_cps_recombines_the_predictions() -> None:
    x, velocity, sigma, after = (tensor.double() for tensor in _case())
    found = transition.cps_step(x, velocity, sigma, after, 0.6)
    level, later = (tensor.reshape(-1, 1, 1, 1, 1) for tensor in (sigma, after))
    x0, noise = x - level * velocity, x + (1 - level) * velocity
    angle = 0.6 * math.pi / 2
    assert_close(found.mean, (1 - later) * x0 + later * math.cos(angle) * noise)
    assert_close(found.std, after * math.sin(angle))
