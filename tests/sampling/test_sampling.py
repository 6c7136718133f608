"""Rollout and replay: the same transition, named noise, and no dependence on neighbours. Rules of design C1 to C3."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.training import replay
from torch import Tensor
from torch.testing import assert_close

from reelign import rollouts, sampling
from reelign.batches import Prompts, Request, Trajectories, requests
from reelign.core import gaussian as exact
from reelign.core import rng, schedule, transition
from reelign.playground.world import corpora
from reelign.rollouts import Exploration
from reelign.sampling import SamplerConfig
from reelign.weights import trainable

Make = Callable[..., Any]
KINDS = {"flow": 0.7, "dance": 0.3, "flash": 1.0, "longcat": 1.0, "cps": 0.7}
PROMPTS = Prompts((Request("A red circle moves right.", 4), Request("A blue square.", 0), Request("two stars", 9)), 3)
PLAIN, GUIDED = SamplerConfig(steps=5, shift=3.0), SamplerConfig(steps=5, shift=3.0, guidance=2.5)
PACKAGED = {"weights": "playground", "size": None, "text_length": None}
LORA = {"name": "lora", "rank": 4}


def _rollout(
    model: Any, kind: str = "flow", sampler: SamplerConfig = PLAIN, micro_batch: int = 32, **more: Any
) -> Trajectories:
    settings = {"first": (0, 2, 1), "width": 2, **more}
    return rollouts.rollout(
        model, PROMPTS, sampler, Exploration(kind, KINDS[kind], **settings), seed=11, micro_batch=micro_batch
    )


def _log_ratios(model: Any, found: Trajectories, micro_batch: int = 32) -> Tensor:
    rows = []
    for k in range(len(found.x)):
        parts = []
        for cut in sampling.chunks(len(found.x0), micro_batch):
            here = replay(model, found, k, cut)
            parts.append(transition.log_prob(here, found.x_next[k, cut]) - found.log_prob[k, cut])
        rows.append(torch.cat(parts))
    return torch.stack(rows)


@pytest.mark.parametrize("sampler", [PLAIN, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("kind", KINDS)
def test_rule_01_a_replay_of_a_fresh_rollout_has_ratio_exactly_one(
    wan: Make, kind: str, sampler: SamplerConfig
) -> None:
    model = wan()
    for micro_batch in (32, 4):
        found = _rollout(model, kind, sampler, micro_batch)
        assert float(_log_ratios(model, found, micro_batch).detach().abs().max()) == 0


@pytest.mark.parametrize(
    "settings",
    [PACKAGED, {"adapter": LORA}, {**PACKAGED, "precision": "bfloat16"}, {"adapter": LORA, "precision": "bfloat16"}],
    ids=["packaged", "lora", "bfloat16", "lora in bfloat16"],
)
def test_rule_01_with_the_packaged_generator_an_adapter_and_half_precision(wan: Make, settings: dict[str, Any]) -> None:
    model = wan(**settings)
    assert float(_log_ratios(model, _rollout(model, sampler=GUIDED)).detach().abs().max()) == 0


def test_rule_02_log_probabilities_belong_to_the_stored_latents(gaussian: Make) -> None:
    found = _rollout(gaussian(side=2))
    stored = transition.Transition(found.mean[0], found.std[0])
    assert torch.equal(transition.log_prob(stored, found.x_next[0]), found.log_prob[0])
    assert {t.dtype for t in (found.x, found.x_next, found.log_prob, found.sigma)} == {torch.float32}


def test_rule_07_after_an_update_the_ratio_moves(wan: Make) -> None:
    model = wan()
    found = _rollout(model)
    with torch.no_grad():
        for p in trainable(model.network).values():
            p += 0.01 * rng.normal(p.shape, seed=1)
    assert (_log_ratios(model, found) != 0).all()


def test_rule_10_the_last_step_is_never_stochastic(gaussian: Make) -> None:
    with pytest.raises(ValueError, match=r"step 4 of 5 ends at sigma = 0 and cannot be stochastic; use steps 0 to 3"):
        _rollout(gaussian(), first=(0, 0, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_rule_11_every_recorded_value_is_finite_even_from_pure_noise(gaussian: Make, kind: str) -> None:
    found = _rollout(gaussian(), kind, first=(0, 0, 0), width=4)
    assert all(bool(torch.isfinite(t).all()) for t in (found.x, found.x_next, found.log_prob, found.mean, found.x0))
    assert (found.std > 0).all()


def test_rule_15_levels_of_rollout_and_replay_are_the_samplers_table(gaussian: Make) -> None:
    found = _rollout(gaussian())
    table = schedule.sigmas(5, 3.0)
    first = torch.tensor([0, 2, 1]).repeat_interleave(3)
    for k in range(2):
        assert torch.equal(found.sigma[k], table[first + k])
        assert torch.equal(found.sigma_next[k], table[first + k + 1])


def test_rule_16_the_network_sees_the_level_of_the_kernel(wan: Make) -> None:
    model, seen = wan(), []
    model.network.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    found = _rollout(model, first=(1, 1, 1), width=1)
    assert {t.dtype for t in seen} == {torch.float32}
    levels = torch.cat([t.flatten() for t in seen]).unique()
    assert torch.equal(levels, (1000 * schedule.sigmas(5, 3.0)[:-1]).flip(0))
    assert (1000 * found.sigma).unique() in levels


def test_rule_18_noise_within_a_group_and_between_steps_is_uncorrelated(gaussian: Make) -> None:
    model = gaussian(side=24)
    prompts = Prompts(requests(("a", "b")), 4)
    found = rollouts.rollout(model, prompts, PLAIN, Exploration("flow", 0.7, (0, 0), 3), seed=5)
    noise = ((found.x_next - found.mean) / found.std[..., None, None, None, None]).flatten(0, 1).flatten(1)
    correlation = torch.corrcoef(noise) - torch.eye(len(noise))
    # 24 draws give 276 correlations; five standard errors are never reached by chance.
    assert float(correlation.abs().max()) < 5 / noise.shape[1] ** 0.5
    assert noise.std().item() == pytest.approx(1, abs=0.02)


def test_rule_18_one_seed_gives_the_same_bits_and_another_one_others(wan: Make) -> None:
    model = wan()
    first, again = _rollout(model), _rollout(model)
    assert torch.equal(first.x0, again.x0)
    assert torch.equal(first.x_next, again.x_next)
    other = rollouts.rollout(model, PROMPTS, PLAIN, Exploration("flow", 0.7, (0, 2, 1), 2), seed=12)
    assert not torch.isclose(first.x0, other.x0).any(dim=0).all()


def test_rule_19_a_group_shares_its_initial_noise_when_asked_to(gaussian: Make) -> None:
    shared = _rollout(gaussian(side=2), first=(0, 0, 0), width=1)
    own = _rollout(gaussian(side=2), first=(0, 0, 0), width=1, shared_noise=False)
    groups, singles = shared.x[0].reshape(3, 3, -1), own.x[0].reshape(9, -1)
    assert torch.equal(groups, groups[:, :1].expand_as(groups))
    assert len(groups[:, 0].unique(dim=0)) == 3
    assert len(singles.unique(dim=0)) == 9


def test_rule_20_all_members_of_a_group_are_stochastic_at_one_step(gaussian: Make) -> None:
    found = _rollout(gaussian(), first=(3, 0, 2), width=1)
    by_group = found.sigma[0].reshape(3, 3)
    assert torch.equal(by_group, by_group[:, :1].expand_as(by_group))
    assert torch.equal(by_group[:, 0], schedule.sigmas(5, 3.0)[[3, 0, 2]])


def test_rule_21_what_follows_the_window_does_not_touch_the_record(gaussian: Make) -> None:
    found = _rollout(gaussian(side=2), first=(0, 0, 0), width=1)
    x = found.x_next[0].clone()
    table = schedule.sigmas(5, 3.0)
    model = gaussian(side=2)
    for k in range(1, 5):
        velocity = model.velocity(x, table[k].expand(9), model.encode(PROMPTS.repeated))
        x = transition.ode_step(x, velocity, table[k].expand(9), table[k + 1].expand(9)).mean
    assert torch.equal(found.x0, x.detach())


def test_rule_22_a_replay_uses_the_rollouts_guidance(wan: Make) -> None:
    model = wan()
    found = _rollout(model, sampler=GUIDED)
    assert (found.guidance, found.kind, found.eta) == (2.5, "flow", 0.7)
    condition = model.encode(PROMPTS.repeated)
    here = replay(model, found, 0, slice(0, 9)).mean
    guided = model.velocity(found.x[0], found.sigma[0], condition, 2.5)
    expected = transition.step("flow", found.x[0], guided, found.sigma[0], found.sigma_next[0], 0.7).mean
    assert torch.equal(here, expected)


@pytest.mark.parametrize(
    "settings", [{}, PACKAGED, {**PACKAGED, "precision": "fast"}], ids=["tiny", "packaged", "fast"]
)
def test_a_sample_does_not_depend_on_its_neighbours_in_a_micro_batch(wan: Make, settings: dict[str, Any]) -> None:
    """Sampling amplifies one rounding of the packaged generator to 3e-4, so nearly the same would not do."""
    model = wan(**settings)
    texts, seeds = list(corpora.prompts(4, 9)), list(range(4))
    four, *others = (
        sampling.sample(model, model.encode(requests(texts)), seeds, SamplerConfig(steps=10, shift=3.0), n)
        for n in (4, 1, 3)
    )
    for other in others:
        assert_close(other, four, atol=1e-5, rtol=0)
    one, all_ = _rollout(model, micro_batch=1), _rollout(model, micro_batch=8)
    assert_close(one.x0, all_.x0, atol=1e-5, rtol=0)
    assert_close(one.x_next, all_.x_next, atol=1e-5, rtol=0)


def test_a_sample_does_not_depend_on_the_other_prompts(gaussian: Make) -> None:
    model = gaussian(side=2)
    together = _rollout(model)
    alone = rollouts.rollout(model, PROMPTS[1:2], PLAIN, Exploration("flow", 0.7, (2,), 2), seed=11)
    assert torch.equal(together.x0[3:6], alone.x0)


def test_a_larger_group_begins_with_the_smaller_one(gaussian: Make) -> None:
    model = gaussian(side=2)
    exploration = Exploration("flow", 0.7, (1,), 2)
    small, large = (rollouts.rollout(model, Prompts((Request("a", 7),), g), PLAIN, exploration, seed=3) for g in (2, 5))
    assert torch.equal(large.x0[:2], small.x0)


def test_a_shared_deterministic_prefix_is_the_prefix_of_each_sample(wan: Make) -> None:
    model = wan()
    shared = _rollout(model, first=(2, 2, 2), width=1)
    table = schedule.sigmas(5, 3.0)
    seeds = [rng.seed_for(11, "initial", i) for i in PROMPTS.ids for _ in range(3)]
    x, condition = sampling.initial_noise(model, seeds, model.geometry), model.encode(PROMPTS.repeated)
    with torch.no_grad():
        for k in range(2):
            velocity = model.velocity(x, table[k].expand(9), condition)
            x = transition.ode_step(x, velocity, table[k].expand(9), table[k + 1].expand(9)).mean
    # Batches of three prompts against nine samples; see the neighbours above.
    assert_close(shared.x[0], x, atol=1e-5, rtol=0)


def test_prompts_with_windows_at_different_steps_advance_as_if_alone(gaussian: Make) -> None:
    model = gaussian(side=2, mean=0.3, var=0.5)
    for shared in (True, False):
        together = _rollout(model, first=(0, 3, 1), width=1, shared_noise=shared)
        for p, first in enumerate((0, 3, 1)):
            own = Exploration("flow", 0.7, (first,), 1, shared)
            alone = rollouts.rollout(model, PROMPTS[p : p + 1], PLAIN, own, seed=11)
            assert torch.equal(together.x0[3 * p : 3 * p + 3], alone.x0)
            assert torch.equal(together.x[0, 3 * p : 3 * p + 3], alone.x[0])


def test_sampling_twice_gives_the_same_bits_and_does_not_train(wan: Make) -> None:
    model = wan()
    first, again = (sampling.sample(model, model.encode(requests(("a", "b"))), [1, 2], GUIDED) for _ in range(2))
    assert torch.equal(first, again)
    assert not first.requires_grad


def test_the_deterministic_sampler_has_the_moments_of_the_chain(gaussian: Make) -> None:
    model = gaussian(side=8, mean=0.7, var=0.25)
    x0 = sampling.sample(model, model.encode(requests(["x"] * 128)), range(128), SamplerConfig(steps=10, shift=3.0))
    chain = exact.chain("ode", schedule.sigmas(10, 3.0), torch.zeros(10), 0.7, 0.25)
    means, variances = exact.moments(chain)
    # 24576 draws: three standard errors.
    assert x0.mean().item() == pytest.approx(float(means[-1]), abs=0.01)
    assert x0.var().item() == pytest.approx(float(variances[-1]), rel=0.03)
