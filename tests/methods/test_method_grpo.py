"""GRPO: advantages, the ratio, the reference pull, and its gradient in closed form. Rules of design C1 and C4."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.training import Trained
from torch import Tensor
from torch.testing import assert_close

from reelign import rollouts, sampling
from reelign.batches import Condition, Credited, Geometry, Prompts, Request, Scored, Trajectories, requests
from reelign.core import gaussian as exact
from reelign.core import rng, schedule, transition
from reelign.engines.method import Online
from reelign.errors import BadConfig
from reelign.methods import grpo
from reelign.runtime.learner import LearnerConfig
from reelign.sampling import SamplerConfig
from reelign.weights import trainable

Make = Callable[..., Any]
SAMPLER = SamplerConfig(steps=6, shift=3.0)
KINDS = {"flow": 0.7, "dance": 0.3, "flash": 1.0, "longcat": 1.0, "cps": 0.7}


def _method(**settings: Any) -> Online:
    return grpo.build(grpo.Config(**{"among": 4, **settings}))


def _prompts(n: int, group: int) -> Prompts:
    return Prompts(requests(f"prompt {i}" for i in range(n)), group)


def _rollout(
    model: Any, method: Online, prompts: Prompts, micro_batch: int = 32, sampler: SamplerConfig = SAMPLER
) -> Trajectories:
    exploration = method.explore(sampler.steps, prompts, seed=3, iteration=0)
    return rollouts.rollout(model, prompts, sampler, exploration, seed=5, micro_batch=micro_batch)


def _scored(found: Trajectories, rewards: dict[str, Tensor], weights: dict[str, float] | None = None) -> Scored:
    return Scored(found, rewards, weights or dict.fromkeys(rewards, 1.0))


def _rewards(n: int, group: int, seed: int = 0) -> Tensor:
    return rng.normal((n, group), seed=seed)


def _batch(model: Any, method: Online, n: int = 3, group: int = 4, **more: Any) -> Credited:
    return method.credit(_scored(_rollout(model, method, _prompts(n, group), **more), {"r": _rewards(n, group)}))


def _gradient(model: Any, method: Online, batch: Credited, micro_batch: int = 32) -> tuple[float, dict[str, Tensor]]:
    model.network.zero_grad(set_to_none=True)
    total = 0.0
    for loss in method.losses(model, batch, 0, micro_batch):
        loss.value.backward()
        total += loss.value.item()
    return total, {n: p.grad.clone() for n, p in trainable(model.network).items() if p.grad is not None}


def _advantages(rewards: dict[str, Tensor], weights: dict[str, float] | None = None, **settings: Any) -> Credited:
    n, group = next(iter(rewards.values())).shape
    nothing = torch.zeros(0, n * group, 1)
    column = torch.zeros(0, n * group)
    record = Trajectories(
        _prompts(n, group),
        Condition(Geometry(1, 1, 1, 1.0, (1,)), {"text": (torch.zeros(0),) * (n * group)}),
        torch.zeros(n * group, 1),
        nothing,
        nothing,
        column,
        column,
        column,
        nothing,
        column,
        "flow",
        0.7,
        1.0,
        torch.zeros(2),
        torch.zeros(0, n * group, dtype=torch.long),
    )
    return _method(**settings).credit(_scored(record, rewards, weights))


SCALES = pytest.mark.parametrize("scale", ["group", "global", "max_group"])


@SCALES
def test_rule_28_adding_a_constant_per_prompt_leaves_advantages_unchanged(scale: str) -> None:
    rewards = _rewards(4, 6)
    moved = rewards + torch.tensor([[0.0], [3.0], [-2.0], [10.0]])
    assert_close(
        _advantages({"r": rewards}, scale=scale).advantage,
        _advantages({"r": moved}, scale=scale).advantage,
        atol=1e-5,
        rtol=0,
    )


@SCALES
def test_rule_28_scaling_all_rewards_leaves_advantages_unchanged(scale: str) -> None:
    rewards = _rewards(4, 6)
    # The guard of 1e-4 reward units against division by zero stays the same.
    assert_close(
        _advantages({"r": rewards}, scale=scale).advantage,
        _advantages({"r": 10 * rewards}, scale=scale).advantage,
        atol=1e-3,
        rtol=0,
    )


@SCALES
def test_permuting_prompts_permutes_advantages(scale: str) -> None:
    rewards, order = _rewards(4, 6), [2, 0, 3, 1]
    straight = _advantages({"r": rewards}, scale=scale).advantage.reshape(4, 6)
    permuted = _advantages({"r": rewards[order]}, scale=scale).advantage.reshape(4, 6)
    assert_close(permuted, straight[order], atol=1e-6, rtol=0)


def test_rule_29_groups_without_spread_are_idle() -> None:
    rewards = _rewards(3, 4)
    rewards[1] = 0.1
    found = _advantages({"r": rewards})
    assert found.teaches.reshape(3, 4).tolist() == [[True] * 4, [False] * 4, [True] * 4]
    assert not found.advantage.reshape(3, 4)[1].any()
    assert found.metrics["idle_groups"] == pytest.approx(1 / 3)


def test_rule_29_idle_groups_are_left_out_of_sum_and_denominator(gaussian: Make) -> None:
    model, method = gaussian(side=2), _method(scale="group")
    rewards = _rewards(3, 4)
    rewards[1] = 0.1
    full = method.credit(_scored(_rollout(model, method, _prompts(3, 4)), {"r": rewards}))
    kept = Prompts((Request("prompt 0", 0), Request("prompt 2", 2)), 4)
    part = method.credit(_scored(_rollout(model, method, kept), {"r": rewards[[0, 2]]}))
    full_loss, full_gradient = _gradient(model, method, full)
    part_loss, part_gradient = _gradient(model, method, part)
    assert full_loss == pytest.approx(part_loss, abs=1e-6)
    for name, value in part_gradient.items():
        assert_close(full_gradient[name], value, atol=1e-6, rtol=1e-5)


def test_rule_29_a_batch_of_constant_rewards_leaves_the_weights_untouched(gaussian: Make) -> None:
    model, method = gaussian(side=2), _method(kl=0.5)
    model.reference.start()
    learner = Trained(model, LearnerConfig(lr=0.1, weight_decay=0.1))
    with torch.no_grad():
        model.network.offset += 0.3
    before = learner.state()
    before = {name: value.clone() for name, value in before.items()}
    batch = method.credit(_scored(_rollout(model, method, _prompts(2, 4)), {"r": torch.full((2, 4), 0.7)}))
    assert learner.learn(method, batch, 0, "here") == {"updated": 0.0}
    assert learner.updates == 0
    after = learner.state()
    assert after.keys() == before.keys()  # no optimizer moments have appeared
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_rule_33_a_rewards_unit_does_not_decide_its_say() -> None:
    rewards = {"a": _rewards(4, 6), "b": _rewards(4, 6, seed=1)}
    plain = _advantages(rewards).advantage
    assert_close(_advantages({**rewards, "b": 100 * rewards["b"]}).advantage, plain, atol=1e-3, rtol=0)
    assert float((_advantages(rewards, {"a": 1.0, "b": 0.2}).advantage - plain).abs().max()) > 0.1


def test_rule_34_advantages_are_bounded() -> None:
    rewards = torch.zeros(1, 64)
    rewards[0, 0] = 1.0
    assert _advantages({"r": rewards}, limit=2.0).advantage.max() == 2.0


def test_a_group_that_only_one_reward_ranks_still_teaches() -> None:
    constant = torch.ones(2, 3)
    found = _advantages({"a": constant, "b": _rewards(2, 3)})
    assert found.teaches.all()


@pytest.mark.parametrize("kind", KINDS)
def test_rule_01_the_first_update_has_ratio_one_and_clips_nothing(wan: Make, kind: str) -> None:
    model, method = wan(), _method(kind=kind, eta=KINDS[kind], clip=1e-6)
    learner = Trained(model, LearnerConfig(lr=1e-3, micro_batch=4))
    batch = _batch(model, method, micro_batch=4, sampler=SamplerConfig(steps=6, shift=3.0, guidance=2.0))
    first = learner.learn(method, batch, 0, "here")
    assert first["max_abs_log_ratio"] == 0
    assert first["clip_frac"] == 0
    assert first["ratio_mean"] == 1
    second = learner.learn(method, batch, 0, "here")
    assert second["max_abs_log_ratio"] > 0  # rule 7


def test_rule_01_at_ratio_one_the_loss_is_minus_the_mean_advantage(gaussian: Make) -> None:
    model, method = gaussian(side=2), _method()
    batch = _batch(model, method)
    assert _gradient(model, method, batch)[0] == pytest.approx(-batch.advantage.mean().item(), abs=1e-6)


def test_rule_35_micro_batches_do_not_change_loss_or_gradient(wan: Make) -> None:
    """Gradients are compared, not weights: Adam's first step is about lr * sign(gradient), which magnifies rounding."""
    model, method = wan(), _method(kl=0.1, clip=0.5)
    model.reference.start()
    batch = _batch(model, method, micro_batch=8)
    joint_loss, joint = _gradient(model, method, batch, micro_batch=1000)
    for micro_batch in (1, 5, 8):
        loss, gradient = _gradient(model, method, batch, micro_batch)
        assert loss == pytest.approx(joint_loss, abs=1e-6)
        assert gradient.keys() == joint.keys()
        for name, value in joint.items():
            assert_close(gradient[name], value, atol=1e-6, rtol=1e-3)


def test_rule_35_every_recorded_step_counts_in_the_mean(gaussian: Make) -> None:
    model, method = gaussian(), _method(window=3)
    batch = _batch(model, method)
    losses = list(method.losses(model, batch, 0, 5))
    assert len(losses) == 3 * 3  # three steps, twelve samples in chunks of five
    assert sum(loss.share for loss in losses) == pytest.approx(1)


def test_rule_20_windows_lie_among_the_first_steps_and_are_drawn_by_prompt() -> None:
    method, prompts = _method(window=2, among=5), _prompts(200, 2)
    found = method.explore(10, prompts, seed=1, iteration=0)
    assert found == method.explore(10, prompts, seed=1, iteration=0)
    assert set(found.first) == {0, 1, 2, 3}
    reversed_ = Prompts(prompts.requests[::-1], 2)
    assert method.explore(10, reversed_, seed=1, iteration=0).first == found.first[::-1]
    assert method.explore(10, prompts, seed=2, iteration=0).first != found.first


def test_rule_10_a_window_that_would_hold_the_last_step_is_refused() -> None:
    assert set(_method(window=2, among=9).explore(5, _prompts(50, 2), 0, iteration=0).first) == {0, 1, 2}
    with pytest.raises(
        BadConfig, match=r"window: 4 stochastic steps do not fit among the first 3 of 4; the last step ends on data"
    ):
        _method(window=4).explore(4, _prompts(1, 2), 0, iteration=0)


def test_rule_08_at_the_reference_the_pull_is_zero_and_has_no_gradient(gaussian: Make) -> None:
    model, free, pulled = gaussian(side=2, bins=4), _method(), _method(kl=10.0)
    model.reference.start()
    batch = _batch(model, free)
    loss, gradient = _gradient(model, free, batch)
    with_pull, its_gradient = _gradient(model, pulled, batch)
    assert with_pull == loss
    assert all(torch.equal(its_gradient[name], value) for name, value in gradient.items())
    metrics = [part.metrics["reference_kl"] for part in pulled.losses(model, batch, 0, 32)]
    assert all(value == 0 for value in metrics)


@pytest.mark.parametrize("kind", KINDS)
def test_rule_08_the_pull_is_the_exact_step_divergence_and_carries_a_gradient(gaussian: Make, kind: str) -> None:
    model = gaussian(side=3)
    settings = {"kind": kind, "eta": KINDS[kind], "clip": 100.0, "window": 2, "among": 2}
    free, pulled = _method(**settings), _method(**settings, kl=1.0)
    model.reference.start()
    batch = _batch(model, free)
    delta = 0.05
    with torch.no_grad():
        model.network.offset += delta
    record = batch.trajectories
    gain = transition.gain(kind, record.sigma[:, 0], record.sigma_next[:, 0], KINDS[kind])
    expected = (gain * delta) ** 2 / (2 * record.std[:, 0] ** 2)
    found = torch.stack([part.metrics["reference_kl"] for part in pulled.losses(model, batch, 0, 32)])
    assert_close(found, expected, atol=1e-7, rtol=1e-3)  # differences of float32 means

    def pull() -> float:
        return _gradient(model, pulled, batch)[0] - _gradient(model, free, batch)[0]

    gradient = _gradient(model, pulled, batch)[1]["offset"] - _gradient(model, free, batch)[1]["offset"]
    step = 0.02
    values = []
    for move in (step, -2 * step):
        with torch.no_grad():
            model.network.offset += move
        values.append(pull())
    high, low = values
    # The pull is quadratic, so a central difference is exact up to float32.
    assert gradient.sum().item() == pytest.approx((high - low) / (2 * step), rel=0.02)
    assert gradient.sum() > 0


def test_rule_04_the_divergence_is_a_mean_over_elements_so_resolution_does_not_matter(gaussian: Make) -> None:
    found = []
    for side in (1, 6):
        model, method = gaussian(side=side), _method(kl=1.0, window=1, among=1)
        model.reference.start()
        batch = _batch(model, method)
        with torch.no_grad():
            model.network.offset += 0.1
        found.append(next(iter(method.losses(model, batch, 0, 32))).metrics["reference_kl"])
    assert_close(found[0], found[1], atol=0, rtol=1e-3)


@pytest.mark.parametrize(("kind", "window"), [(kind, 1) for kind in KINDS] + [("flow", 2), ("cps", 3)])
def test_the_gradient_is_the_exact_policy_gradient_of_the_chain(gaussian: Make, kind: str, window: int) -> None:
    """For r = mean of x0 over D elements with a shared start, in units of the reward's spread, and over K steps:

    -d loss / d offset_d = (G - 1) / G / K * sum_k gain_k influence_k / (D^2 sd(r)), sd(r) = sqrt(spread / D).
    """
    mean, var, eta, elements, group, n = 0.7, 0.5, KINDS[kind], 3, 8, 768
    model = gaussian(mean=mean, var=var)
    method = _method(kind=kind, eta=eta, window=window, among=window)
    found = _rollout(model, method, _prompts(n, group), micro_batch=n * group)
    reward = found.x0.flatten(1).mean(dim=1).reshape(n, group)
    batch = method.credit(_scored(found, {"r": reward}))
    gradient = -_gradient(model, method, batch, n * group)[1]["offset"]
    strengths = schedule.strengths(SAMPLER.steps, range(window), eta, torch.float64)
    chain = exact.chain(kind, schedule.sigmas(SAMPLER.steps, SAMPLER.shift, torch.float64), strengths, mean, var)
    spread, noisy = math.sqrt(exact.spread(chain) / elements), slice(0, window)
    pull = (chain.gain * exact.influence(chain))[noisy].sum().item()
    expected = (group - 1) / group * pull / (window * elements**2 * spread)
    assert_close(reward.std(dim=1).square().mean().sqrt().item(), spread, atol=0, rtol=0.05)
    # 6144 samples, and the three elements are equal in law: about four standard errors.
    assert gradient.mean().item() == pytest.approx(expected, rel=0.06)


def test_training_on_a_reward_raises_it(gaussian: Make) -> None:
    model, method = gaussian(side=2), _method(clip=0.1)
    learner = Trained(model, LearnerConfig(lr=0.02))
    seeds = range(64)
    before = sampling.sample(model, model.encode(requests(["x"] * 64)), seeds, SAMPLER).mean()
    for step in range(15):
        prompts = _prompts(8, 8)
        found = rollouts.rollout(model, prompts, SAMPLER, method.explore(6, prompts, step, step), seed=step)
        reward = found.x0.flatten(1).mean(dim=1).reshape(8, 8)
        learner.learn(method, method.credit(_scored(found, {"r": reward})), 0, "here")
    assert sampling.sample(model, model.encode(requests(["x"] * 64)), seeds, SAMPLER).mean() > before + 0.1
