"""The closed-form suite passes, and notices when a formula is broken on purpose."""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from inspect import isfunction
from typing import Any

import pytest
import torch

from reelign import verify
from reelign.core import (
    advantage,
    allocation,
    flow,
    forward_loss,
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
from reelign.engines import min_norm


def test_every_check_passes_within_a_minute() -> None:
    start = time.monotonic()
    results = verify.run()
    assert [result.name for result in results if not result.passed] == []
    assert len(results) > 150
    assert list(dict.fromkeys(result.group for result in results)) == list(verify.GROUPS)
    assert time.monotonic() - start < 60


def _spoilt(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that answers wrongly in its own way, also where it should refuse."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return _wrong(function(*args, **kwargs), 1 + len(function.__name__) / 20)
        except ValueError:
            return torch.tensor(0.3, dtype=torch.float64)

    return call


def _wrong(value: Any, by: float) -> Any:
    if isinstance(value, torch.Tensor):
        return by * value + by if value.is_floating_point() else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value + by
    if isinstance(value, dict):
        return {key: _wrong(each, by) for key, each in value.items()}
    if is_dataclass(value):
        return replace(value, **{f.name: _wrong(getattr(value, f.name), by) for f in fields(value)})
    if isinstance(value, tuple):
        parts = [_wrong(each, by + i) for i, each in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def test_every_check_fails_where_the_library_answers_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [module for name, module in sys.modules.items() if name.startswith("reelign.")]
    for library in (*(m for m in ours if m.__name__.startswith("reelign.core.")), min_norm):
        for name, function in [*vars(library).items()]:
            own = getattr(function, "__module__", "") == library.__name__
            if isfunction(function) and own and name[0] != "_" and name != "expand_to":
                for module in ours:
                    if vars(module).get(name) is function:
                        monkeypatch.setattr(module, name, _spoilt(function))
    assert [(result.group, result.name) for result in verify.run() if result.passed] == []


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
    assert verify.table(verify.run(only={"stats", "reward loss"})).endswith("all 3 checks passed")
    monkeypatch.setattr(stats, "win_rates", lambda good, same, bad: stats.WinRates(0.5, math.nan, 0.5))
    text = verify.table(verify.run(only={"stats", "reward loss"}))
    assert "FAIL  50 good, 30 same, 20 bad" in text
    assert text.endswith("1 of 3 checks failed")


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


def _summed_log_prob(found, x_next):
    return _LOG_PROB(found, x_next) * x_next[0].numel()


def _kl_without_gradient(a, b):
    with torch.no_grad():
        return _STEP_KL(a, b)


def _kl_without_half(a, b):
    return 2 * _STEP_KL(a, b)


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
    return min_norm.Balance(weights, weights @ rows, rows.new_zeros(()))


def _even(advantage, maps):
    return advantage[:, None, None, None].expand_as(maps)


def _sure(advantage, limit):
    return 0.5 + 0.5 * advantage / limit


def _two_good(velocity, sampled, beta):
    good, _ = _IMPLICIT(velocity, sampled, beta)
    return good, good


def _full_step(velocity, sampled, beta):
    return _IMPLICIT(velocity, sampled, 1.0)


def _moving_unit(velocity, target, sigma):
    gap = flow.expand_to(sigma, velocity) * (velocity - target)
    return flow.per_sample_mean(gap.square()) / flow.per_sample_mean(gap.abs()).clamp(min=forward_loss.SCALE_MIN)


def _good_is_bad(velocity, sampled, target, chance, beta, *, sigma=None):
    return _NFT(velocity, sampled, target, 1 - chance, beta, sigma=sigma)


def _nft_times_beta(velocity, sampled, target, chance, beta, *, sigma=None):
    return beta * _NFT(velocity, sampled, target, chance, beta, sigma=sigma)


def _backwards_ratio(policy, sampled, weight):
    return weight * (policy - sampled)


def _ratio_without_weight(policy, sampled, weight):
    return sampled - policy


def _summed_divergence(velocity, other):
    return (velocity - other).square().flatten(1).sum(dim=1)


def _no_divergence(velocity, other):
    return 0 * flow.velocity_error(velocity, other)


def _away_from_good(velocity, sampled, target, advantage, beta):
    return _ANCHORED(velocity, sampled, target, -advantage, beta)


def _anchor_without_beta(velocity, sampled, target, advantage, beta):
    return _ANCHORED(velocity, sampled, target, advantage, 1.0)


def _harmful_reward(policy, sampled):
    return _IMPLICIT_REWARD(sampled, policy)


def _reward_of_its_own(policy, sampled):
    return sampled - policy


def _crd_without_beta(policy, sampled, advantage, beta):
    return _CRD(policy, sampled, advantage, 1.0)


def _uncentred_target(policy, sampled, advantage, beta):
    return (beta * forward_loss.implicit_reward(policy, sampled) - advantage).square()


def _weight_that_grows(policy, reference, advantage, beta):
    return 1 - _GROUP_WEIGHT(policy, reference, advantage, beta)


def _weight_without_beta(policy, reference, advantage, beta):
    return _GROUP_WEIGHT(policy, reference, advantage, 1.0)


def _weight_with_gradient(policy, reference, advantage, beta):
    return torch.sigmoid(beta * (advantage * (policy - reference)).mean(dim=1))


def _worse_for_good(policy, reference, advantage, beta):
    return -_DGPO(policy, reference, advantage, beta)


_IMPLICIT, _NFT, _ANCHORED = forward_loss.implicit_velocities, forward_loss.nft, forward_loss.anchored
_IMPLICIT_REWARD, _CRD, _DGPO = forward_loss.implicit_reward, forward_loss.crd, forward_loss.dgpo
_GROUP_WEIGHT = forward_loss.group_weight
_RELIABILITY = trust.reliability
_LOG_PROB, _STEP_KL, _GROUP, _RATE = transition.log_prob, transition.step_kl, advantage.group, transition.rate
_FLOW_DPO, _SHIFTED, _CPS, _VELOCITY = (
    preference_loss.flow_dpo, schedule.shifted, transition.cps_step, gaussian.velocity,
)  # fmt: skip

FORWARD = {"forward loss", "forward fixed points"}

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
    "velocity from noise to data": (flow, "velocity_target", _backwards_velocity, {"flow", "forward fixed points"}),
    "shift applied twice": (schedule, "shifted", _shift_twice, {"schedule"}),
    "velocity one percent short": (gaussian, "velocity", _shrunk_velocity, {"flow", "marginals", "chain"}),
    "contrast without its exponential": (trust, "contrast", _flat_contrast, {"trust"}),
    "reliability turned around": (trust, "reliability", _less_reliable, {"trust"}),
    "sparsity not brought to 0 and 1": (pacing, "hoyer", _length_ratio, {"pacing"}),
    "rewards averaged instead of balanced": (min_norm, "balance", _averaged, {"balance"}),
    "credit spread evenly": (allocation, "dense", _even, {"allocation"}),
    "probabilities beyond 0 and 1": (forward_loss, "probability", _sure, {"forward loss"}),
    "two good velocities": (forward_loss, "implicit_velocities", _two_good, FORWARD),
    "implicit velocities without beta": (forward_loss, "implicit_velocities", _full_step, FORWARD),
    "normaliser with gradient": (forward_loss, "self_normalised", _moving_unit, {"forward loss"}),
    "good and bad exchanged": (forward_loss, "nft", _good_is_bad, FORWARD),
    "nft not divided by beta": (forward_loss, "nft", _nft_times_beta, {"forward loss"}),
    "likelihood that grows with the error": (forward_loss, "log_ratio", _backwards_ratio, {"forward loss"}),
    "likelihood without its weight": (forward_loss, "log_ratio", _ratio_without_weight, {"forward loss"}),
    "divergence summed over elements": (forward_loss, "divergence", _summed_divergence, {"forward loss"}),
    "no anchor": (forward_loss, "divergence", _no_divergence, FORWARD),
    "matching of bad samples": (forward_loss, "anchored", _away_from_good, FORWARD),
    "anchor without beta": (forward_loss, "anchored", _anchor_without_beta, FORWARD),
    "implicit reward turned around": (forward_loss, "implicit_reward", _harmful_reward, FORWARD),
    "implicit reward not centred": (forward_loss, "implicit_reward", _reward_of_its_own, FORWARD),
    "crd without beta": (forward_loss, "crd", _crd_without_beta, FORWARD),
    "crd's advantage not centred": (forward_loss, "crd", _uncentred_target, {"forward loss"}),
    "group weight that grows with success": (forward_loss, "group_weight", _weight_that_grows, {"forward loss"}),
    "group weight without beta": (forward_loss, "group_weight", _weight_without_beta, {"forward loss"}),
    "group weight with gradient": (forward_loss, "group_weight", _weight_with_gradient, {"forward loss"}),
    "dgpo against good samples": (forward_loss, "dgpo", _worse_for_good, {"forward loss"}),
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
