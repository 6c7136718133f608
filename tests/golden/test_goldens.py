"""Worked numbers that any implementation of these formulas must reproduce; the letters name the case."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reelign.core import advantage, policy_loss, preference_loss, schedule, stats, transition, weighting


def _t(values: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _near(found: Tensor, expected: list[float], atol: float = 1e-8) -> None:
    assert_close(found, _t(expected), atol=atol, rtol=1e-7)


@pytest.mark.parametrize(
    ("rewards", "options", "expected"),
    [
        ([1, 2, 3, 4, 5], {"eps": 0.0}, [-1.26491106, -0.63245553, 0, 0.63245553, 1.26491106]),
        ([1, 2, 3, 4], {}, [-1.16180501, -0.38726834, 0.38726834, 1.16180501]),
        ([1, 2, 3], {"eps": 1e-8, "population": True}, [-1.22474486, 0, 1.22474486]),
        ([0.13, 0.1301, 0.1299, 0.13], {"std_floor": 0.01}, [0, 0, 0, 0]),
        ([7, 7, 7], {}, [0, 0, 0]),
        ([7], {}, [0]),
        ([1, 3, 10, 20, 24], {"eps": 0.0}, [-1.04293131, -0.84615182, -0.15742359, 0.82647387, 1.22003285]),
    ],
    ids=["A-1", "A-2", "A-5", "A-4 floor", "A-6 constant", "A-6 single", "M-4"],
)
def test_advantages(rewards: list[float], options: dict[str, Any], expected: list[float]) -> None:
    _near(advantage.group(_t(rewards)[None], **options)[0], expected)


def test_a_3_and_a_4_at_their_printed_precision() -> None:
    _near(advantage.group(_t([10, 20, 30, 40])[None])[0], [-1.161886, -0.387295, 0.387295, 1.161886], 1e-6)
    _near(advantage.group(_t([0.13, 0.1301, 0.1299, 0.13])[None])[0], [0, 0.55051026, -0.55051026, 0], 1e-6)


def test_b_1_clipped_loss() -> None:
    found = policy_loss.clipped(_t([1.3, 0.7, 1, 1.5]).log(), _t([1, -1, 2, -2]), 0.2)
    _near(found, [-1.2, 0.8, -2, 3])
    assert found.mean().item() == pytest.approx(0.15)


def test_b_2_ratio_diagnostics() -> None:
    two = math.log(2)
    found = policy_loss.diagnostics(_t([0, two, -two]), _t([1, 1, 1]), 0.2)
    keys = ("ratio_mean", "chi2", "ess", "k3", "abs_log_ratio")
    _near(torch.stack([found[key] for key in keys]), [1.16666667, 0.41666667, 0.77777778, 0.16666667, 0.46209812])


def test_b_3_and_b_4_divergence_in_mean_and_velocity_space() -> None:
    a, b = (transition.Transition(_t([[mean, mean]]), _t([0.15])) for mean in (0.0, 0.02))
    _near(transition.step_kl(a, b), [0.00888889])
    sigma, after = _t([0.7]), _t([0.45])
    _near(transition.rate("flow", sigma, after, 0.3), [0.45825757])
    c, d = (transition.step("flow", _t([[1.0]]), _t([[v]]), sigma, after, 0.3) for v in (0.5, 0.6))
    _near(transition.step_kl(c, d), [0.0065001488], 1e-10)
    _near(weighting.gradient_scale("flow", sigma, after, 0.3) ** 2 / 2 * 0.01, [0.0065001488], 1e-10)


# The printed log-densities add 1e-8 to the std inside the logarithm; ours are exact, hence 3e-7.
@pytest.mark.parametrize(
    ("kind", "at", "expected"),
    [
        ("dance", (1, 0.5, 0.3, 0.7, 0.45, 0.9), [0.8565178571, 0.15, 0.9361659017]),
        ("flow", (1, 0.5, 0.3, 0.7, 0.45, 0.9), [0.831875, 0.2291287847, 0.5103323290]),
        ("dance", (1, -0.4, 0.25, 1, 0.95, 1.1), [1.0184375, 0.0559016994, 0.9008311608]),
        ("flow", (1, -0.4, 0.25, 1, 0.95, 1.1), [0.98875, 0.25, 0.3683432879]),
        ("dance", (-0.3, 0.8, 0.3, 0.5, 0.4, -0.2), [-0.3809, 0.0948683298, -0.3817182878]),
        ("flow", (-0.3, 0.8, 0.3, 0.5, 0.4, -0.2), [-0.3809, 0.0948683298, -0.3817182878]),
    ],
    ids=["C-1", "C-2", "C-3", "C-4", "C-5 dance", "C-5 flow"],
)
def test_sde_steps(kind: str, at: tuple[float, ...], expected: list[float]) -> None:
    x, v, eta, sigma, after, drawn = at
    found = transition.step(kind, _t([[x]]), _t([[v]]), _t([sigma]), _t([after]), eta)
    density = transition.log_prob(found, _t([[drawn]]))
    _near(torch.cat([found.mean[0], found.std]), expected[:2], 1e-10)
    _near(density, expected[2:], 3e-7)


def test_c_6_peak_of_the_density() -> None:
    found = transition.Transition(_t([[0.4]]), _t([0.15]))
    _near(transition.log_prob(found, _t([[0.4]])), [0.9781813850], 1e-7)


@pytest.mark.parametrize("kind", ["flow", "dance"])
def test_c_7_without_noise_it_is_the_euler_step_and_has_no_density(kind: str) -> None:
    found = transition.step(kind, _t([[1.0]]), _t([[0.5]]), _t([0.7]), _t([0.45]), 0.0)
    _near(torch.cat([found.mean[0], found.std]), [1 - 0.25 * 0.5, 0])
    with pytest.raises(ValueError, match="std 0"):
        transition.log_prob(found, _t([[1.0]]))


def test_c_8_the_pole_is_an_error() -> None:
    with pytest.raises(ValueError, match="infinite"):
        transition.step("flow", _t([[1.0]]), _t([[0.5]]), _t([1]), _t([1]), 0.3)


def test_d_1_sixteen_levels_and_their_timesteps() -> None:
    levels = schedule.sigmas(16, 5.0, torch.float64)
    expected = [
        1, 0.98684211, 0.97222222, 0.95588235, 0.9375, 0.91666667, 0.89285714, 0.86538462, 0.83333333, 0.79545455,
        0.75, 0.69444444, 0.625, 0.53571429, 0.41666667, 0.25, 0,
    ]  # fmt: skip
    _near(levels, expected)
    steps = [1000, 986, 972, 955, 937, 916, 892, 865, 833, 795, 750, 694, 625, 535, 416, 250]
    assert [int(1000 * level + 1e-9) for level in levels.tolist()[:-1]] == steps


@pytest.mark.parametrize(
    ("n", "shift", "expected"),
    [
        (8, 3.0, [1, 0.95454545, 0.9, 0.83333333, 0.75, 0.64285714, 0.5, 0.3, 0]),
        (4, 5.0, [1, 0.9375, 0.83333333, 0.625, 0]),
    ],
    ids=["D-2", "D-3"],
)
def test_tables(n: int, shift: float, expected: list[float]) -> None:
    _near(schedule.sigmas(n, shift, torch.float64), expected)


@pytest.mark.parametrize(("n", "count"), [(16, 9), (10, 5), (3, 1), (2, 1)])
def test_d_4_trained_steps(n: int, count: int) -> None:
    assert schedule.trained_count(n, 0.6) == count


def test_d_5_and_d_6_a_thousand_levels_and_their_bell_weight() -> None:
    levels = schedule.sigmas(1000, 5.0, torch.float64)[:-1]
    at = [0, 100, 357, 358, 500, 900, 999]
    _near(levels[at], [1, 0.97826087, 0.90005599, 0.89966368, 0.83333333, 0.35714286, 0.00498008])
    weight = weighting.bell(levels)
    _near(weight[at], [0, 0.13907506, 0.63090305, 0.63330811, 1.02486174, 1.86534605, 0.03187907])
    assert weight.mean().item() == pytest.approx(1)
    assert weight.argmax() == 833
    assert weight.max().item() == pytest.approx(2.07640028)


@pytest.mark.parametrize(
    ("kind", "levels", "expected"),
    [
        ("flow", [1, 0.75, 0.5, 0.25, 0], [1.50676129, 1.30489355, 0.75338064, 0.43496452]),
        ("flow", [1, 0.6, 0], [1.02633404, 0.97366596]),
        ("dance", [1, 0.75, 0.5, 0.25, 0], [1, 1, 1, 1]),
    ],
    ids=["F-1", "F-2", "F-4"],
)
def test_noise_weights(kind: str, levels: list[float], expected: list[float]) -> None:
    table = _t(levels)
    _near(weighting.noise_scale(kind, table[:-1], table[1:], 0.3), expected)


def test_f_3_noise_weights_of_sixteen_shifted_steps() -> None:
    table = schedule.sigmas(16, 5.0, torch.float64)
    expected = [
        1.88481530, 1.97365564, 1.42536835, 1.18950261, 1.05364378, 0.96458498, 0.90183583, 0.85555659,
        0.82026057, 0.79244700, 0.76947262, 0.74879203, 0.72708329, 0.69855903, 0.65032306, 0.54409931,
    ]  # fmt: skip
    _near(weighting.noise_scale("flow", table[:-1], table[1:], 0.3), expected)


@pytest.mark.parametrize(
    ("errors", "beta", "expected"),
    [
        ([0.3, 0.35, 0.3, 0.35], 5000.0, [0, 0.69314718, 1250]),
        ([0.300, 0.350, 0.302, 0.349], 5000.0, [7.5, 0.00055293, 1.38194659]),
        ([0.31, 0.34, 0.30, 0.35], 500.0, [-5, 5.00671535, 248.326787]),
    ],
    ids=["K-1", "K-2", "K-3"],
)
def test_preference_pairs(errors: list[float], beta: float, expected: list[float]) -> None:
    e = [_t([error]) for error in errors]
    inside = preference_loss.margin(e[0], e[1], e[2], e[3], beta)
    loss = preference_loss.flow_dpo(e[0], e[1], e[2], e[3], beta)
    _near(torch.cat([inside, loss, preference_loss.kappa(inside, beta)]), expected)


def test_k_7_two_backward_passes_give_the_gradient_of_one() -> None:
    weight = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def errors(of: Tensor) -> Tensor:
        return (torch.tanh(of @ weight) - 0.3) ** 2

    reference = [errors(part).detach() + 0.01 for part in inputs]
    loss = preference_loss.flow_dpo(errors(inputs[0]), errors(inputs[1]), reference[0], reference[1], 50.0)
    (joint,) = torch.autograd.grad(loss.mean(), weight)
    with torch.no_grad():
        inside = preference_loss.margin(errors(inputs[0]), errors(inputs[1]), reference[0], reference[1], 50.0)
    kappa = preference_loss.kappa(inside, 50.0)
    (winner,) = torch.autograd.grad((kappa * errors(inputs[0])).mean(), weight)
    (loser,) = torch.autograd.grad((-kappa * errors(inputs[1])).mean(), weight)
    assert_close(winner + loser, joint, atol=1e-12, rtol=1e-12)


def test_l_4_dense_advantages() -> None:
    log_ratio, importance = _t([1.3, 0.9, 1.3]).log(), _t([0, 0.5, 1])
    _near(policy_loss.clipped(log_ratio, importance, 0.2), [0, -0.45, -1.2])
    _near(policy_loss.clipped(log_ratio, -importance, 0.2), [0, 0.45, 1.3])


def test_m_1_win_rates() -> None:
    assert stats.win_rates(50, 30, 20) == pytest.approx((0.71428571, 0.65, 0.30))
