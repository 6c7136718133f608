"""Any method with any module: the same verbs, no special cases, on data known in closed form."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from tests.training import Trained
from torch import Tensor

from reelign import parts, rollouts
from reelign.batches import Credited, Prompts, Scored, Videos, requests
from reelign.core import rng
from reelign.engines.slots import Demand
from reelign.errors import BadConfig
from reelign.runtime.learner import LearnerConfig
from reelign.sampling import SamplerConfig
from reelign.weights import trainable

Make = Callable[..., Any]
SAMPLER = SamplerConfig(steps=6, shift=3.0)
GROUP = 4
PROMPTS = Prompts(requests(("a", "b", "c")), GROUP)
RANGES = {"first": (0.0, 1.0), "second": (0.0, 1.0), "third": (0.0, 1.0)}
DATA = {"name": "tests.parts.gaussian_data"}

POLICY = ("grpo", "flow_grpo", "dance_grpo", "mix_grpo", "flash_grpo", "longcat", "tempflow", "grpo_guard", "pcpo")
POLICY += ("flow_dppo", "flow_cps")
FORWARD = ("nft", "awm", "crd", "dgpo")
SETTINGS: dict[str, dict[str, Any]] = {"flash_grpo": {"among": 4}, "mix_grpo": {"window": 2}, "tempflow": {"among": 4}}

MODULES: dict[str, dict[str, Any]] = {
    "combine": {"form": "min_norm"},
    "self_paced": {"order": ["first", "second"], "thresholds": [0.4, 0.6]},
    "bpgo": {},
    "vipo": {},
    "antithetic": {},
    "kl": {"form": "velocity", "target": 1e-3},
    "gardo": {"main": "first", "form": "velocity"},
    "ddrl": {"dataset": DATA, "batch": 4},
}
ONLY_POLICY = {"vipo", "antithetic"}


def test_every_shipped_method_and_module_is_covered() -> None:
    offline = {"sft", "dpo"}
    assert {*POLICY, *FORWARD} == set(parts.available("method")) - offline
    # The playground's oracle needs playground clips; it has tests of its own.
    assert set(MODULES) == set(parts.available("module")) - {"oracle"}


def configured(method: str, *modules: str, **settings: Any) -> Any:
    """A method's Config with modules in their test settings."""
    given = [{"name": name, **MODULES[name]} for name in modules]
    return parts.configure("method", {"name": method, "modules": given, **SETTINGS.get(method, {}), **settings})


def build(method: str, *modules: str, **settings: Any) -> Any:
    """A method with modules in their test settings."""
    return parts.build("method", configured(method, *modules, **settings))


def _rewards(videos: Videos) -> dict[str, Tensor]:
    """Three scores in [0, 1] that pull in different directions."""
    flat = videos.frames.flatten(1)
    return {
        "first": torch.sigmoid(flat.mean(dim=1)),
        "second": torch.sigmoid(-3 * flat[:, 0]),
        "third": torch.sigmoid(flat[:, -1] - flat[:, 1]),
    }


def score(model: Any, method: Any, found: Any) -> Scored:
    """What a runtime's score would give."""
    videos = model.decode(found.x0, found.condition)
    rewards = {name: r.reshape(-1, found.prompts.group) for name, r in _rewards(videos).items()}
    seen = method.see(videos, found.prompts, found.x0, _rewards)
    return Scored(found, rewards, {"first": 1.0, "second": 0.5, "third": 0.25}, seen)


def begin(model: Any, method: Any) -> None:
    """What a stage does before its first rollout."""
    for role in sorted(method.slots.needs):
        model.reference.start(role)
    method.begin(PROMPTS.requests, lambda asked, seeds: {name: torch.full((len(asked),), 0.5) for name in RANGES})


def batch(model: Any, method: Any, step: int = 0) -> Credited:
    """One rollout with its credit."""
    exploration = method.explore(SAMPLER.steps, PROMPTS, step, step)
    return method.credit(score(model, method, rollouts.rollout(model, PROMPTS, SAMPLER, exploration, step)))


def gradient(model: Any, method: Any, credited: Credited, micro_batch: int = 32) -> dict[str, Tensor]:
    """Of the sum of all losses."""
    model.network.zero_grad(set_to_none=True)
    for loss in method.losses(model, credited, 0, micro_batch):
        if loss.share:
            loss.value.backward()
    return {n: p.grad.clone() for n, p in trainable(model.network).items() if p.grad is not None}


def _iterations(model: Any, method: Any, n: int) -> list[dict[str, float]]:
    begin(model, method)
    learner = Trained(model, LearnerConfig(lr=1e-2))
    found = []
    for step in range(n):
        credited = batch(model, method, step)
        metrics = learner.learn(method, credited, step, "here")
        found.append({**metrics, **method.after(model.reference, metrics), **credited.metrics})
    return found


@pytest.mark.parametrize("name", [*POLICY, *FORWARD])
def test_every_method_learns_and_says_finite_things(gaussian: Make, name: str) -> None:
    model = gaussian(side=4, bins=4)
    before = {n: p.detach().clone() for n, p in trainable(model.network).items()}
    for metrics in _iterations(model, build(name), 2):
        assert metrics["updated"] == 1
        assert all(torch.isfinite(torch.tensor(v)) for v in metrics.values())
    assert any(not torch.equal(before[n], p) for n, p in trainable(model.network).items())


@pytest.mark.parametrize("name", POLICY)
@pytest.mark.parametrize("module", [None, *MODULES])
def test_rule_01_the_first_ratio_is_exactly_one(gaussian: Make, name: str, module: str | None) -> None:
    model = gaussian(side=4, bins=4)
    method = build(name, *([module] if module else []))
    assert _iterations(model, method, 1)[0]["max_abs_log_ratio"] == 0


@pytest.mark.parametrize("method", [*POLICY, *FORWARD])
@pytest.mark.parametrize("pair", [*combinations(MODULES, 2)], ids="-".join)
def test_any_method_takes_any_two_modules_or_says_in_a_sentence_why_not(
    gaussian: Make, method: str, pair: tuple[str, str]
) -> None:
    if set(pair) == {"kl", "gardo"}:
        with pytest.raises(BadConfig, match="both decide"):
            build(method, *pair)
    elif method in FORWARD and ONLY_POLICY & set(pair):
        with pytest.raises(BadConfig, match="has no recorded steps"):
            build(method, *pair)
    else:
        model = gaussian(side=4, bins=4)
        for metrics in _iterations(model, build(method, *pair), 2):
            assert all(torch.isfinite(torch.tensor(v)) for v in metrics.values())


@pytest.mark.parametrize("method", POLICY)
def test_all_four_modules_of_teleboost_stack(gaussian: Make, method: str) -> None:
    model = gaussian(side=4, bins=4)
    found = _iterations(model, build(method, "bpgo", "self_paced", "combine", "vipo"), 3)
    assert all(torch.isfinite(torch.tensor(v)) for metrics in found for v in metrics.values())
    assert {"reliability", "pace/first", "balance/weight/first", "map_mean"} <= found[0].keys()


@pytest.mark.parametrize("method", [*POLICY, *FORWARD])
@pytest.mark.parametrize("modules", [(), ("kl", "ddrl"), ("vipo",)], ids=["plain", "kl-ddrl", "vipo"])
def test_rule_35_micro_batches_do_not_change_the_gradient(
    gaussian: Make, method: str, modules: tuple[str, ...]
) -> None:
    if method in FORWARD and ONLY_POLICY & set(modules):
        with pytest.raises(BadConfig, match="has no recorded steps"):
            build(method, *modules)
        return
    model, built = gaussian(side=4, bins=4), build(method, *modules)
    begin(model, built)
    credited = batch(model, built)
    whole = gradient(model, built, credited, 100)
    for micro_batch in (4, 5):
        for name, value in gradient(model, built, credited, micro_batch).items():
            torch.testing.assert_close(value, whole[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", [*POLICY, *FORWARD])
def test_what_a_method_remembers_is_all_that_its_future_depends_on(gaussian: Make, method: str) -> None:
    modules = ("bpgo", "self_paced", "kl")
    model, built = gaussian(side=4, bins=4), build(method, *modules)
    _iterations(model, built, 2)
    again = build(method, *modules)
    again.load({name: value.clone() for name, value in built.state().items()})
    for one, other in ((built, again),):
        a, b = batch(model, one, 5), batch(model, other, 5)
        assert torch.equal(a.advantage, b.advantage)
        first, second = gradient(model, one, a), gradient(model, other, b)
        assert all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("method", [*POLICY, *FORWARD])
def test_rule_29_a_batch_without_spread_teaches_nothing(gaussian: Make, method: str) -> None:
    model, built = gaussian(side=4, bins=4), build(method, "ddrl")
    begin(model, built)
    found = rollouts.rollout(model, PROMPTS, SAMPLER, built.explore(SAMPLER.steps, PROMPTS, 0, 0), 0)
    flat = {name: torch.full((3, GROUP), 0.7) for name in RANGES}
    credited = built.credit(Scored(found, flat, dict.fromkeys(RANGES, 1.0)))
    assert credited.metrics["idle_groups"] == 1
    assert not list(built.losses(model, credited, 0, 32))


@pytest.mark.parametrize("method", [*POLICY, *FORWARD])
def test_rule_33_the_scale_of_a_reward_does_not_matter(gaussian: Make, method: str) -> None:
    model, built = gaussian(side=4, bins=4), build(method)
    begin(model, built)
    found = rollouts.rollout(model, PROMPTS, SAMPLER, built.explore(SAMPLER.steps, PROMPTS, 0, 0), 0)
    scored = score(model, built, found)
    from dataclasses import replace

    # The constant beside the std is 1e-4, so rewards are made large enough for it not to show.
    large = {name: 1e3 * r for name, r in scored.rewards.items()}
    larger = {**large, "second": 100 * large["second"] + 7}
    one, other = (built.credit(replace(scored, rewards=r)).advantage for r in (large, larger))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_an_odd_group_is_refused_for_opposite_noise() -> None:
    with pytest.raises(BadConfig, match=r"antithetic noise comes in pairs, but the stage's group is 5; make it even"):
        configured("grpo", "antithetic").check(Demand(SAMPLER, 2, 5, 1, 32, RANGES))


def test_antithetic_members_get_opposite_noise(gaussian: Make) -> None:
    model, method = gaussian(side=2), build("grpo", "antithetic", shared_noise=True)
    found = rollouts.rollout(model, PROMPTS, SAMPLER, method.explore(SAMPLER.steps, PROMPTS, 0, 0), 0)
    drawn = (found.x_next - found.mean)[0]
    torch.testing.assert_close(drawn[0::2], -drawn[1::2], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(rng.normal(drawn[0].shape, seed=0), drawn[0])


@pytest.mark.parametrize("method", ["grpo", "flow_grpo", "mix_grpo", "longcat"])
def test_a_window_that_only_the_last_step_is_left_for_is_refused(method: str) -> None:
    with pytest.raises(BadConfig, match="the last step ends on data and cannot be stochastic"):
        parts.configure("method", method).check(
            Demand(SamplerConfig(steps=2).model_copy(update={"steps": 1}), 2, 4, 1, 32, RANGES)
        )


def test_a_window_across_the_boundary_of_two_experts_is_refused() -> None:
    """Levels are 1, .94, .86, .75, .6, .375: a boundary of 0.8 lies between the third and the fourth."""
    inside, across = configured("grpo", window=2, among=3), configured("grpo", window=2, among=4)
    demand = Demand(SamplerConfig(steps=6, shift=3.0), 2, 4, 1, 32, RANGES, boundary=0.8)
    inside.check(demand)
    with pytest.raises(BadConfig, match=r"steps 2 to 3 lie on both sides of the experts' boundary at 0\.8"):
        across.check(demand)
    across.check(Demand(SAMPLER, 2, 4, 1, 32, RANGES))
    configured("nft").check(demand)
