"""The closed-form suite passes, and notices when a formula is broken on purpose."""

import json
import math
import time
from collections.abc import Callable

import pytest
import torch

from reelign import joint, verify
from reelign.core import (
    advantage,
    allocation,
    flow,
    gaussian,
    pacing,
    policy_loss,
    preference_loss,
    schedule,
    stats,
    transition,
    trust,
    weighting,
)
from reelign.core.transition import Transition


def test_every_check_passes_within_a_minute() -> None:
    start = time.monotonic()
    seen: list[str] = []
    results = verify.run(seen.append)
    assert [result.name for result in results if not result.passed] == []
    assert len(results) > 150
    assert seen == list(verify.GROUPS)
    assert time.monotonic() - start < 60


def test_groups_can_be_run_alone() -> None:
    assert {result.group for result in verify.run(only={"schedule", "stats"})} == {"schedule", "stats"}
    with pytest.raises(ValueError, match="no group called 'ghost'"):
        verify.run(only={"ghost"})


def test_names_are_unique_so_that_a_failure_can_be_found() -> None:
    names = [(group, check.name) for group, checks in verify.GROUPS.items() for check in checks()]
    assert len(names) == len(set(names))


def test_results_are_plain_json() -> None:
    rows = [result.to_dict() for result in verify.run(only={"stats"})]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0].keys() == {
        "name", "group", "source", "expected", "measured", "tolerance", "passed", "error",
    }  # fmt: skip


def test_the_table_names_failures_and_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify.table(verify.run(only={"stats"})).endswith("all 2 checks passed")
    monkeypatch.setattr(stats, "win_rates", lambda good, same, bad: stats.WinRates(0.5, math.nan, 0.5))
    text = verify.table(verify.run(only={"stats"}))
    assert "FAIL  50 good, 30 same, 20 bad" in text
    assert text.endswith("1 of 2 checks failed")


def test_an_error_in_the_library_is_a_failed_check_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(good: int, same: int, bad: int) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(stats, "win_rates", broken)
    failed = next(result for result in verify.run(only={"stats"}) if not result.passed)
    assert failed.error == "RuntimeError: out of order"
    assert "out of order" in verify.table([failed])


def _like(wrong: Callable[..., Transition]) -> Callable[..., Transition]:
    def step(x, velocity, sigma, sigma_next, rate):
        delta = sigma - sigma_next
        wide = (lambda value: flow.expand_to(value, x)) if sigma.ndim or rate.ndim else (lambda value: value)
        return wrong(x, velocity, sigma, delta, rate, wide)

    return step


def _std(rate, delta, x):
    return (rate * delta.sqrt()).expand(len(x))


@_like
def _wrong_sign(x, velocity, sigma, delta, rate, wide):
    pull = wide(rate**2 * delta / (2 * sigma)) * flow.noise_from(x, velocity, sigma)
    return Transition(x - wide(delta) * velocity + pull, _std(rate, delta, x))


@_like
def _no_score(x, velocity, sigma, delta, rate, wide):
    return Transition(x - wide(delta) * velocity, _std(rate, delta, x))


@_like
def _no_root_of_delta(x, velocity, sigma, delta, rate, wide):
    pull = wide(rate**2 * delta / (2 * sigma)) * flow.noise_from(x, velocity, sigma)
    return Transition(x - wide(delta) * velocity - pull, (rate * torch.ones_like(delta)).expand(len(x)))


@_like
def _double_score(x, velocity, sigma, delta, rate, wide):
    pull = wide(rate**2 * delta / sigma) * flow.noise_from(x, velocity, sigma)
    return Transition(x - wide(delta) * velocity - pull, _std(rate, delta, x))


def _summed_log_prob(found, x_next, mask=None):
    return _LOG_PROB(found, x_next, mask) * x_next[0].numel()


def _kl_without_gradient(a, b, mask=None):
    with torch.no_grad():
        return _STEP_KL(a, b, mask)


def _kl_without_half(a, b, mask=None):
    return 2 * _STEP_KL(a, b, mask)


def _other_std(rewards_pg, eps=1e-4, *, population=False, std_floor=0.0, scale="group"):
    return _GROUP(rewards_pg, eps, population=not population, std_floor=std_floor, scale=scale)


def _backwards_dpo(policy_w, policy_l, reference_w, reference_l, beta):
    return _FLOW_DPO(policy_l, policy_w, reference_l, reference_w, beta)


def _no_reference(policy_w, policy_l, reference_w, reference_l, beta):
    return _FLOW_DPO(policy_w, policy_l, 0 * reference_w, 0 * reference_l, beta)


def _unclipped(log_ratio, advantage, clip):
    return -advantage * log_ratio.exp()


def _optimistic(log_ratio, advantage, clip):
    ratio = log_ratio.exp()
    return torch.minimum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


def _backwards_velocity(x0, noise):
    return x0 - noise


def _shift_twice(sigma, shift):
    return _SHIFTED(_SHIFTED(sigma, shift), shift)


def _uncapped(kind, sigma, sigma_next, eta, **ends):
    return _RATE("flow" if kind == "longcat" else kind, sigma, sigma_next, eta, **ends)


def _cps_with_root(x, velocity, sigma, sigma_next, eta):
    found = _CPS(x, velocity, sigma, sigma_next, eta)
    return Transition(found.mean, found.std * (sigma - sigma_next).sqrt())


def _shrunk_velocity(x, sigma, mean, var):
    return _VELOCITY(x, sigma, mean, var) * 0.99


def _flat_contrast(rewards_pg, prior, *, strength=1.0):
    apart = rewards_pg - prior[:, None]
    return strength * apart + (apart > 0)


def _less_reliable(rewards_pg, prior, *, strength=0.5, slope=1.0):
    return 2 - _RELIABILITY(rewards_pg, prior, strength=strength, slope=slope)


def _length_ratio(rewards):
    return rewards.sum(dim=-1) / rewards.square().sum(dim=-1).sqrt()


def _averaged(rows, preference=()):
    weights = rows.new_full((len(rows),), 1 / len(rows))
    return joint.Balance(weights, weights @ rows, rows.new_zeros(()))


def _even(advantage, maps):
    return advantage[:, None, None, None].expand_as(maps)


_RELIABILITY = trust.reliability
_LOG_PROB, _STEP_KL, _GROUP, _RATE = transition.log_prob, transition.step_kl, advantage.group, transition.rate
_FLOW_DPO, _SHIFTED, _CPS, _VELOCITY = (
    preference_loss.flow_dpo, schedule.shifted, transition.cps_step, gaussian.velocity,
)  # fmt: skip

BROKEN = {
    "wrong sign in the drift": (transition, "sde_step", _wrong_sign, {"transition", "marginals", "chain"}),
    "no score correction": (transition, "sde_step", _no_score, {"transition", "marginals", "chain"}),
    "score correction twice": (transition, "sde_step", _double_score, {"transition", "marginals", "chain"}),
    "std without sqrt(delta)": (transition, "sde_step", _no_root_of_delta, {"transition", "marginals", "chain"}),
    "cps std with sqrt(delta)": (transition, "cps_step", _cps_with_root, {"transition", "chain"}),
    "longcat without its cap": (transition, "rate", _uncapped, {"transition", "marginals"}),
    "log-density summed": (transition, "log_prob", _summed_log_prob, {"transition"}),
    "divergence without gradient": (transition, "step_kl", _kl_without_gradient, {"transition"}),
    "divergence without one half": (transition, "step_kl", _kl_without_half, {"transition", "chain"}),
    "sample and population std swapped": (advantage, "group", _other_std, {"advantage"}),
    "winner and loser swapped": (preference_loss, "flow_dpo", _backwards_dpo, {"preference"}),
    "reference left out": (preference_loss, "flow_dpo", _no_reference, {"preference"}),
    "no clip": (policy_loss, "clipped", _unclipped, {"policy loss"}),
    "clip on the optimistic side": (policy_loss, "clipped", _optimistic, {"policy loss"}),
    "velocity from noise to data": (flow, "velocity_target", _backwards_velocity, {"flow", "tilt"}),
    "shift applied twice": (schedule, "shifted", _shift_twice, {"schedule"}),
    "velocity one percent short": (gaussian, "velocity", _shrunk_velocity, {"flow", "marginals", "chain"}),
    "contrast without its exponential": (trust, "contrast", _flat_contrast, {"trust"}),
    "reliability turned around": (trust, "reliability", _less_reliable, {"trust"}),
    "sparsity not brought to 0 and 1": (pacing, "hoyer", _length_ratio, {"pacing"}),
    "rewards averaged instead of balanced": (joint, "min_norm", _averaged, {"balance"}),
    "credit spread evenly": (allocation, "dense", _even, {"allocation"}),
    "weights not divided by their mean": (weighting, "mean_one", lambda raw: raw, {"weighting"}),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_formula_is_noticed_in_every_group_that_rests_on_it(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, wrong, groups = BROKEN[fault]
    monkeypatch.setattr(module, name, wrong)
    failed = {result.group for result in verify.run(only=groups) if not result.passed}
    assert failed == groups


def test_dpo_with_the_wrong_sign_moves_the_fixed_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preference_loss, "flow_dpo", _backwards_dpo)
    assert any(not result.passed for result in verify.run(only={"preference fixed points"}))


def test_a_sampled_gradient_notices_a_wrong_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    right = transition.gain
    monkeypatch.setattr(transition, "gain", lambda *args: 1.2 * right(*args))
    assert any(not result.passed for result in verify.run(only={"gradient"}))
