"""Correctness rules for sampling, ratios and advantages; each test carries the number of its rule."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from reelign import verify
from reelign.core import advantage, gaussian, policy_loss, rng, schedule, stats, transition

NOISY = [("flow", 0.7), ("dance", 0.3), ("flash", 1.0), ("longcat", 1.0), ("cps", 0.7)]
SHAPE = (4, 3, 5, 6)


def _rollout(kind: str, eta: float, n: int = 10) -> list[tuple[torch.Tensor, ...]]:
    """Stored transitions of four samples: latent, velocity, levels, strength, next latent, log-density."""
    levels = schedule.sigmas(n, 5.0)
    strengths = schedule.strengths(n, range(n - 1), eta)
    x = rng.normals([rng.seed_for(0, "start", i) for i in range(4)], SHAPE)
    stored = []
    for k in range(n - 1):
        velocity = gaussian.velocity(x, levels[k], 0.4, 0.5)
        found = transition.step(kind, x, velocity, levels[k], levels[k + 1], strengths[k])
        drawn = transition.draw(found, rng.normals([rng.seed_for(0, "step", k, i) for i in range(4)], SHAPE))
        stored.append((x, velocity, levels[k], levels[k + 1], strengths[k], drawn, transition.log_prob(found, drawn)))
        x = drawn
    return stored


def _replay(kind: str, row: tuple[torch.Tensor, ...], shift: float = 0.0) -> torch.Tensor:
    x, velocity, sigma, after, strength, drawn, _ = row
    return transition.log_prob(transition.step(kind, x, velocity + shift, sigma, after, strength), drawn)


@pytest.mark.parametrize(("kind", "eta"), NOISY)
def test_rule_01_the_first_on_policy_ratio_is_exactly_one(kind: str, eta: float) -> None:
    centred = advantage.group(torch.tensor([[1.0, 2.0, 4.0, 0.0]]))[0]
    for row in _rollout(kind, eta):
        log_ratio = _replay(kind, row) - row[-1]
        assert torch.equal(log_ratio, torch.zeros(4))
        loss = policy_loss.clipped(log_ratio, centred, 1e-4)
        assert abs(loss.mean().item()) < 1e-6
        assert policy_loss.diagnostics(log_ratio, centred, 1e-4)["clip_frac"] == 0


def test_rule_02_rounding_a_stored_draw_alone_exceeds_a_small_clip() -> None:
    # Why latents are stored in float32: bfloat16 moves the log-ratio by more than the clip range before any update.
    row = _rollout("dance", 0.3)[5]
    rounded = (*row[:5], row[5].bfloat16().float(), row[6])
    assert torch.equal(_replay("dance", row), row[6])
    assert (_replay("dance", rounded) - row[6]).abs().max() > 1e-4


def test_rule_03_coarse_velocities_hurt_less_at_high_noise() -> None:
    def divergence(level: float) -> float:
        sigma, after = torch.tensor([level]), torch.tensor([level - 0.03])
        x = rng.normal((1, 4096), seed=1)
        velocity = gaussian.velocity(x, sigma, 0.4, 0.5)
        coarse = velocity.bfloat16().float()
        a, b = (transition.step("flow", x, v, sigma, after, 0.7) for v in (velocity, coarse))
        return transition.step_kl(a, b).item()

    assert divergence(0.9) < 1e-5 / 3
    assert divergence(0.2) > 5 * divergence(0.9)


def test_rule_04_log_ratios_do_not_depend_on_the_resolution() -> None:
    for row in _rollout("flow", 0.7)[:3]:
        big = tuple(t.repeat(1, 1, 1, 1, 4) if t.ndim > 1 else t for t in row)
        assert_close(_replay("flow", big, 0.1), _replay("flow", row, 0.1))


def test_rule_05_ratios_average_as_importance_weights_must() -> None:
    results = {result.name: result for result in verify.run(only={"gradient"})}
    assert results["width of the guarded log-ratio"].passed
    assert next(result for name, result in results.items() if name.startswith("mean of the summed ratio")).passed


@pytest.mark.parametrize("width", [0.0045, 0.0141, 0.0447])
def test_rule_06_a_clip_range_is_a_bound_on_the_divergence(width: float) -> None:
    # With mean shift `width` in units of std, log-ratios are -width^2/2 with spread width/sqrt(elements).
    elements = 65_536
    noise = rng.normal((4, elements), seed=3, dtype=torch.float64)
    one = torch.ones(4, dtype=torch.float64)
    sampled = transition.Transition(torch.zeros_like(noise), one)
    policy = transition.Transition(torch.full_like(noise, width), one)
    log_ratio = transition.log_prob(policy, noise) - transition.log_prob(sampled, noise)
    assert (log_ratio + width**2 / 2).abs().max() < 4 * width / math.sqrt(elements)


def test_rule_07_the_second_update_no_longer_has_ratio_one() -> None:
    row = _rollout("flow", 0.7)[2]
    assert (_replay("flow", row, 1e-3) != row[-1]).all()


@pytest.mark.parametrize(("kind", "eta"), NOISY)
def test_rule_08_step_kl_uses_the_kernel_std_and_has_a_gradient(kind: str, eta: float) -> None:
    sigma, after = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.55], dtype=torch.float64)
    x = torch.ones(1, 3, dtype=torch.float64)
    reference = transition.step(kind, x, x * 0.2, sigma, after, eta)
    gap = torch.full((1, 3), 0.1, dtype=torch.float64, requires_grad=True)
    policy = transition.step(kind, x, x * 0.2 + gap, sigma, after, eta)
    scale = transition.gain(kind, sigma, after, eta).abs() / policy.std
    kl = transition.step_kl(policy, reference)
    assert_close(kl, scale**2 / 2 * 0.1**2)
    (slope,) = torch.autograd.grad(kl.sum(), gap)
    assert_close(slope, (scale**2 * 0.1 / 3).expand(1, 3))

    same = transition.step(kind, x, (x * 0.2).requires_grad_(), sigma, after, eta)
    assert transition.step_kl(same, reference).item() == 0


def test_rule_09_velocity_and_step_penalties_differ_by_the_gradient_scale() -> None:
    sigma, after = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.55], dtype=torch.float64)
    x = torch.ones(1, 3, dtype=torch.float64)
    v = torch.full((1, 3), 0.3, dtype=torch.float64, requires_grad=True)
    reference = transition.step("flow", x, x * 0.2, sigma, after, 0.7)
    step = transition.step_kl(transition.step("flow", x, v, sigma, after, 0.7), reference).sum()
    plain = (v - x * 0.2).square().mean()
    ratio = torch.autograd.grad(step, v)[0] / torch.autograd.grad(plain, v)[0]
    c = transition.gain("flow", sigma, after, 0.7).abs() / reference.std
    assert_close(ratio, (c**2 / 2).expand(1, 3))


@pytest.mark.parametrize(("kind", "eta"), NOISY)
def test_rule_10_every_selectable_step_has_a_finite_density_and_the_last_is_not_selectable(
    kind: str, eta: float
) -> None:
    assert all(bool(torch.isfinite(row[-1]).all()) for row in _rollout(kind, eta))
    for seed in range(30):
        assert 9 not in schedule.random_steps(10, 1.0, seed)


@pytest.mark.parametrize(("kind", "eta"), NOISY)
def test_rule_11_the_first_step_is_finite_and_the_same_in_replay(kind: str, eta: float) -> None:
    row = _rollout(kind, eta)[0]
    assert row[2] == 1
    assert bool(torch.isfinite(row[-1]).all())
    assert torch.equal(_replay(kind, row), row[-1])


def _variance_error(kind: str, eta: float, n: int) -> float:
    levels = schedule.sigmas(n, 1.0, torch.float64)
    strengths = schedule.strengths(n, range(n - 1), eta, torch.float64)
    means, variances = gaussian.moments(gaussian.chain(kind, levels, strengths, 0.7, 0.5))
    assert_close(means, (1 - levels) * 0.7, atol=1e-6, rtol=0)
    return abs(variances[-1].item() / 0.5 - 1)


@pytest.mark.parametrize(("kind", "eta"), [("dance", 0.3), ("flash", 1.0)])
def test_rule_12_sde_samplers_approach_the_marginals_in_proportion_to_the_step(kind: str, eta: float) -> None:
    assert _variance_error(kind, eta, 800) < 0.01
    assert _variance_error(kind, eta, 200) / _variance_error(kind, eta, 800) == pytest.approx(4, rel=0.25)


def test_rule_12_flow_approaches_them_more_slowly_because_of_its_pole() -> None:
    # The first step forgets its start like delta^(eta^2 / 2) only, so the variance error falls like n^(-eta^2).
    errors = [_variance_error("flow", 0.7, n) for n in (800, 3200)]
    assert errors[0] < 0.01
    assert 1.3 < errors[0] / errors[1] < 2.2


def test_rule_12_cps_keeps_the_mean_but_not_the_variance_of_spread_data() -> None:
    assert _variance_error("cps", 0.7, 800) > 0.2


@pytest.mark.parametrize("kind", [kind for kind, _ in NOISY])
def test_rule_13_without_noise_every_kind_is_the_euler_step_to_the_last_bit(kind: str) -> None:
    x, velocity = torch.randn(2, 4, *SHAPE, generator=torch.Generator().manual_seed(1))
    for k in range(9):
        sigma, after = schedule.sigmas(10, 5.0)[k : k + 2]
        quiet = transition.step(kind, x, velocity, sigma, after, 0.0)
        assert torch.equal(quiet.mean, transition.ode_step(x, velocity, sigma, after).mean)
        assert torch.equal(quiet.std, torch.zeros(4))


def test_rule_14_the_score_has_the_sign_and_scale_of_the_noised_density() -> None:
    assert all(result.passed for result in verify.run(only={"flow"}))


def test_rule_16_levels_are_not_multiples_of_a_thousandth() -> None:
    levels = schedule.sigmas(16, 5.0)[1:-1] * 1000
    assert (levels - levels.floor()).max() > 0.5


@pytest.mark.parametrize("spoil", [torch.Tensor.double, torch.Tensor.bfloat16, torch.Tensor.half])
def test_rule_17_mixed_or_coarse_dtypes_are_refused(spoil: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x, sigma, after = torch.zeros(2, 3), torch.tensor(0.7), torch.tensor(0.5)
    with pytest.raises(TypeError, match="float32"):
        transition.step("flow", x, spoil(x), sigma, after, 0.7)
    with pytest.raises(TypeError, match="float32"):
        transition.step("ode", x, x, spoil(sigma), spoil(after))
    if spoil is not torch.Tensor.double:
        with pytest.raises(TypeError, match="float32"):
            transition.step("dance", spoil(x), spoil(x), spoil(sigma), spoil(after), 0.7)


def test_rule_18_noise_of_different_samples_is_uncorrelated_and_repeatable() -> None:
    names = [(prompt, member, k) for prompt in range(3) for member in range(3) for k in range(2)]
    noise = rng.normals([rng.seed_for(0, "rollout", *name) for name in names], (20_000,))
    off_diagonal = torch.corrcoef(noise) - torch.eye(len(names))
    assert off_diagonal.abs().max() < 4 / math.sqrt(20_000)  # 4: the largest of 153 pairs
    assert torch.equal(noise, rng.normals([rng.seed_for(0, "rollout", *name) for name in names], (20_000,)))


def test_rule_19_a_shared_start_pays_with_one_stochastic_step_only() -> None:
    results = [r for r in verify.run(only={"gradient"}) if r.name.startswith("gradient of a group")]
    all_separate, all_shared, one_separate, one_shared = (result.measured[1] for result in results)
    assert all_shared > 0.95 * all_separate
    assert one_shared < 0.7 * one_separate


def test_rule_21a_only_the_memoryless_strength_carries_over_to_the_ode() -> None:
    results = {r.name: r for r in verify.run(only={"deployment"})}
    assert all(r.passed for r in results.values())
    sde, ode = results["flow 1.41, 4000 steps: shift under the SDE and under the ODE"].measured
    assert sde == pytest.approx(ode, abs=1e-3)


def test_rule_21_a_density_does_not_depend_on_what_follows() -> None:
    row = _rollout("flow", 0.7)[2]
    short = _rollout("flow", 0.7)[:3][2]
    assert torch.equal(row[-1], short[-1])


@pytest.mark.parametrize("scale", advantage.SCALES)
def test_rule_28_units_and_prompt_difficulty_leave_advantages_unchanged(scale: str) -> None:
    rewards = rng.normal((6, 8), seed=1, dtype=torch.float64)
    base = advantage.group(rewards, 0.0, scale=scale)
    assert_close(advantage.group(rewards * 10, 0.0, scale=scale), base)
    offsets = torch.arange(6.0, dtype=torch.float64)[:, None]
    assert_close(advantage.group(rewards + offsets, 0.0, scale=scale), base)


def test_rule_28_pooled_scales_do_not_amplify_the_noise_of_an_easy_prompt() -> None:
    rewards = torch.tensor([[0.0, 1.0, 2.0, 3.0], [5.0, 5.001, 5.0, 5.001]])
    assert advantage.group(rewards)[1].abs().max() > 0.5
    for scale in ("global", "max_group"):
        assert advantage.group(rewards, scale=scale)[1].abs().max() < 1e-2


def test_rule_29_groups_without_spread_give_no_gradient_and_leave_the_denominator() -> None:
    rewards = torch.tensor([[0.1, 0.1, 0.1], [1.0, 2.0, 3.0]])
    found, keep = advantage.group(rewards), advantage.teaches(rewards)
    assert torch.equal(found[0], torch.zeros(3))
    assert keep.tolist() == [False, True]
    log_ratio = torch.zeros(2, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(policy_loss.clipped(log_ratio, found, 1e-4)[0].sum(), log_ratio)
    assert torch.equal(slope, torch.zeros(2, 3))


def test_rule_30_a_baseline_with_the_own_sample_shrinks_the_gradient_by_one_over_g() -> None:
    results = [r for r in verify.run(only={"gradient"}) if r.name.startswith("gradient of a group")]
    assert results[0].expected[0] == pytest.approx(0.595490 * 7 / 8, abs=1e-6)
    assert all(result.passed for result in results)


def test_rule_31_prompt_ids_beyond_float32_stay_apart() -> None:
    base = 2**24
    clustered = stats.over_prompts([0.0, 0.0, 1.0, 1.0], [base, base, base + 1, base + 1])
    assert (clustered.low, clustered.high) == (0.0, 1.0)


def test_rule_32_advantages_do_not_depend_on_how_prompts_are_dealt_to_ranks() -> None:
    rewards = rng.normal((6, 4), seed=2)
    dealt = torch.cat([advantage.group(part) for part in rewards.split([1, 2, 3])])
    assert torch.equal(dealt, advantage.group(rewards))


def test_rule_33_a_rewards_unit_does_not_change_its_vote() -> None:
    rewards = rng.normal((6, 4), seed=3)
    assert_close(advantage.group(100 * rewards + 7, 0.0), advantage.group(rewards, 0.0))


def test_rule_34_advantages_are_bounded() -> None:
    rewards = torch.zeros(1, 64)
    rewards[0, 0] = 1.0
    assert advantage.group(rewards).max() > 5
    assert advantage.clamp(advantage.group(rewards)).max() == 5
