"""Computing less without computing anything else: kept graphs, merged replay, a shorter tail, dense credit."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reelign import rollouts, sampling
from reelign.batches import Credited, Prompts, Scored, Trajectories, requests
from reelign.core import rng
from reelign.methods import flow_dppo, flow_grpo, grpo, grpo_guard, pcpo
from reelign.playground.world import corpora
from reelign.sampling import SamplerConfig
from reelign.weights import trainable

Make = Callable[..., Any]
SAMPLER = SamplerConfig(steps=6, shift=3.0)
PACKAGED = {"weights": "playground", "size": None, "text_length": None}
LORA = {"adapter": {"name": "lora", "rank": 4}}
MODELS = {"packaged": PACKAGED, "bfloat16": {**PACKAGED, "precision": "bfloat16"}, "lora": LORA}
METHODS = {
    "grpo": grpo.build(grpo.Config(among=4, kl=0.1)),
    "full": flow_grpo.build(flow_grpo.Config()),
    "guard": grpo_guard.build(grpo_guard.Config(among=4)),
    "hinge": pcpo.build(pcpo.Config(among=4)),
    "mask": flow_dppo.build(flow_dppo.Config(among=4)),
}


def _prompts(n: int = 3, group: int = 4) -> Prompts:
    return Prompts(requests(corpora.prompts(n, 5)), group)


def _rollout(model: Any, method: Any, micro_batch: int = 5, *, retain: bool = False, **more: Any) -> Trajectories:
    exploration = replace(method.explore(SAMPLER.steps, _prompts(), 1, 0), **more)
    return rollouts.rollout(model, _prompts(), SAMPLER, exploration, 2, micro_batch, retain=retain)


def _credit(method: Any, found: Trajectories) -> Credited:
    rewards = {"r": rng.normal((3, 4), seed=8)}
    rewards["r"][1] = 0.5  # a group that teaches nothing
    return method.credit(Scored(found, rewards, {"r": 1.0}))


def _gradient(model: Any, method: Any, batch: Credited, micro_batch: int = 5) -> tuple[float, dict[str, Tensor]]:
    model.network.zero_grad(set_to_none=True)
    total = 0.0
    for loss in method.losses(model, batch, 0, micro_batch):
        if loss.share:
            loss.value.backward()
        total += loss.value.item()
    return total, {n: p.grad.clone() for n, p in trainable(model.network).items() if p.grad is not None}


EACH_TIME = {("packaged", "grpo"), ("packaged", "full"), ("bfloat16", "full"), *(("lora", name) for name in METHODS)}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        pytest.param(MODELS[model], name, id=f"{model}-{name}", marks=() if quick else pytest.mark.whole)
        for model in MODELS
        for name in METHODS
        for quick in [(model, name) in EACH_TIME]
    ],
)
def test_a_kept_graph_gives_the_same_samples_and_the_same_gradient(
    wan: Make, name: str, settings: dict[str, Any]
) -> None:
    model, method = wan(**settings), METHODS[name]
    model.reference.start()
    plain, kept = _rollout(model, method), _rollout(model, method, retain=True)
    assert torch.equal(plain.x0, kept.x0)
    assert torch.equal(plain.log_prob, kept.log_prob)
    assert not plain.live
    assert not kept.x_next.requires_grad
    value, gradient = _gradient(model, method, _credit(method, plain))
    again, same = _gradient(model, method, _credit(method, kept))
    assert value == again
    assert gradient.keys() == same.keys()
    assert all(torch.equal(gradient[name], same[name]) for name in gradient)


def test_a_kept_graph_saves_one_forward_pass_for_each_recorded_step(wan: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, method = wan(**PACKAGED), grpo.build(grpo.Config(among=4))
    calls: list[bool] = []
    velocity = model.velocity

    def counted(x: Tensor, *rest: Any) -> Tensor:
        calls.extend([torch.is_grad_enabled()] * len(x))
        return velocity(x, *rest)

    monkeypatch.setattr(model, "velocity", counted)
    counts = {}
    for retain in (False, True):
        calls.clear()
        _gradient(model, method, replace(_credit(method, _rollout(model, method, retain=retain))))
        counts[retain] = len(calls)
    assert counts[False] - counts[True] == 2 * 12


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_merged_replay_gives_the_same_gradient(wan: Make, method: Any) -> None:
    model = wan(**PACKAGED)
    model.reference.start()
    batch = _credit(method, _rollout(model, method))
    merged = replace(batch, trajectories=replace(batch.trajectories, merge=True))
    value, gradient = _gradient(model, method, batch)
    again, same = _gradient(model, method, merged, 100)
    assert len(list(method.losses(model, merged, 0, 100))) == 1
    assert value == pytest.approx(again, abs=1e-6)
    for name, tensor in gradient.items():
        assert_close(same[name], tensor, atol=1e-6, rtol=1e-3)


def test_a_shared_prefix_gives_the_samples_of_separate_ones(wan: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deterministic steps before the window, once a prompt or once a sample."""
    model, method = wan(**PACKAGED), grpo.build(grpo.Config(among=4))
    once = _rollout(model, method, 4)
    whole = rollouts._takeoff

    def separate(course: Any, prompts: Prompts, condition: Any, exploration: Any, seed: int) -> Any:
        flight = whole(course, prompts, condition, replace(exploration, first=(0,) * len(prompts)), seed)
        until = torch.tensor(exploration.first).repeat_interleave(prompts.group)
        sampling.advance(course, flight, until)
        return flight

    monkeypatch.setattr(rollouts, "_takeoff", separate)
    assert torch.equal(once.x0, _rollout(model, method, 4).x0)


def test_a_tail_as_long_as_what_is_left_changes_nothing_and_a_short_one_ends_near(wan: Make) -> None:
    model, method = wan(**PACKAGED), grpo.build(grpo.Config(among=4))
    full, long, short = (_rollout(model, method, tail=tail).x0 for tail in (None, 6, 2))
    assert torch.equal(full, long)
    assert not torch.equal(full, short)
    assert (full - short).square().mean() < 0.1 * full.square().mean()


def test_equal_credit_everywhere_gives_the_gradient_of_one_credit_a_sample(wan: Make) -> None:
    model, method = wan(**PACKAGED), grpo.build(grpo.Config(among=4))
    batch = _credit(method, _rollout(model, method))
    places = batch.trajectories.x0.shape[-3:]
    dense = replace(batch, advantage=batch.advantage[:, None, None, None].expand(-1, *places))
    _, gradient = _gradient(model, method, batch)
    _, same = _gradient(model, method, dense)
    for name, tensor in gradient.items():
        assert_close(same[name], tensor, atol=1e-6, rtol=1e-3)


def test_credit_at_one_place_moves_only_what_was_drawn_there(gaussian: Make) -> None:
    model, method = gaussian(side=2), grpo.build(grpo.Config(among=4))
    batch = _credit(method, _rollout(model, method))
    where = torch.zeros(12, 1, 2, 2)
    where[:, 0, 1, 0] = 1
    _, gradient = _gradient(model, method, replace(batch, advantage=batch.advantage[:, None, None, None] * where))
    moved = gradient["offset"].abs().sum(dim=(0, 1))
    assert moved[0, 1, 0] > 0
    assert moved.sum() == moved[0, 1, 0]


def test_samples_that_are_passed_over_are_as_if_they_were_not_there(gaussian: Make) -> None:
    model, method = gaussian(side=2), grpo.build(grpo.Config(among=4))
    batch = _credit(method, _rollout(model, method))
    rows = torch.tensor([0, 2, 9])
    few = Credited(rollouts.select(batch.trajectories, rows), batch.advantage[rows], torch.ones(3, dtype=torch.bool))
    teaches = torch.zeros(12, dtype=torch.bool)
    teaches[rows] = True
    value, gradient = _gradient(model, method, few)
    again, same = _gradient(model, method, replace(batch, teaches=teaches))
    assert value == pytest.approx(again)
    for name, tensor in gradient.items():
        assert_close(same[name], tensor)
