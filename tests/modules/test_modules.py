"""Modules that combine rewards (combine) and that hold the policy back (kl, gardo, ddrl)."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.test_online_methods import batch, gradient
from tests.methods.test_policy_methods import loss_and_gradient, move, precise, rows_of
from tests.modules.rollouts import UNIT, advantages, build, configured, demand, never, scored, standard
from torch import Tensor
from torch.testing import assert_close

from reelign import rollouts
from reelign.batches import Credited, Prompts, requests
from reelign.core import flow, rng
from reelign.errors import BadConfig
from reelign.modules import ddrl
from reelign.sampling import SamplerConfig
from reelign.weights import trainable

Make = Callable[..., Any]
BALANCE = {"name": "combine", "form": "min_norm", "scale": "group"}
KNOWN = {"first": [1.0, 2.0, 3.0, 4.0], "second": [2.0, 1.0, 4.0, 3.0], "third": [4.0, 3.0, 1.0, 2.0]}
"""Three rewards whose best combination is known: 9, 9 and 16 parts of 34."""


def _added(*rows: tuple[float, list[float]]) -> list[float]:
    return [sum(weight * row[i] for weight, row in rows) for i in range(len(rows[0][1]))]


def _near(found: list[float], expected: list[float]) -> None:
    # Sums by hand are in float64.
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_gdpo_compares_reward_by_reward_then_adds_and_compares_again() -> None:
    first, second = [0.1, 0.2, 0.4, 0.8], [70.0, 10.0, 90.0, 20.0]
    given = scored({"a": torch.tensor([first]), "b": torch.tensor([second])}, {"a": 1.0, "b": 0.5})
    (found,) = advantages(build({"name": "combine", "scale": "group"}), given)
    _near(found, standard(_added((1.0, standard(first)), (0.5, standard(second)))))


def test_gdpos_unit_is_of_ones_choice() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0, 6.0], [10.0, 30.0, 20.0, 40.0]])
    std = rewards.std(dim=1)
    for scale, unit in {"group": std, "global": std.square().mean().sqrt(), "max_group": std.max()}.items():
        found = torch.tensor(advantages(build({"name": "combine", "scale": scale}), scored({"a": rewards})))
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        assert_close(found, centred / (unit.reshape(-1, 1) if unit.ndim else unit), atol=0, rtol=1e-3)


def test_sum_adds_raw_rewards_then_compares() -> None:
    first, second = [0.1, 0.2, 0.4, 0.8], [0.7, 0.1, 0.9, 0.2]
    given = scored({"a": torch.tensor([first]), "b": torch.tensor([second])}, {"a": 1.0, "b": 0.5})
    (found,) = advantages(build({"name": "combine", "form": "sum"}), given)
    _near(found, standard(_added((1.0, first), (0.5, second))))


BASE, EXTRA, OTHER = [0.1, 0.2, 0.4, 0.8], [5.0, 9.0, 2.0, 1.0], [0.3, 0.9, 0.1, 0.2]
DERIVED = {"a": torch.tensor([BASE]), "a/extra": torch.tensor([EXTRA]), "b": torch.tensor([OTHER])}
WEIGHTS = {"a": 2.0, "a/extra": 0.3, "b": 0.5}


def test_a_derived_reward_is_added_to_its_base_and_shares_the_bases_weight() -> None:
    (found,) = advantages(build({"name": "combine", "scale": "group"}), scored(DERIVED, WEIGHTS))
    own = _added((1.0, standard(BASE)), (0.3, standard(EXTRA)))
    _near(found, standard(_added((2.0, own), (0.5, standard(OTHER)))))
    (found,) = advantages(build({"name": "combine", "form": "sum"}), scored(DERIVED, WEIGHTS))
    _near(found, standard(_added((2.0, BASE), (2.0 * 0.3, EXTRA), (0.5, OTHER))))


def test_min_norm_balances_bases_and_not_what_is_derived_from_them() -> None:
    credited = build(BALANCE).credit(scored(DERIVED, {**WEIGHTS, "a": 1.0, "b": 1.0}))
    assert sorted(k for k in credited.metrics if "weight" in k) == ["balance/weight/a", "balance/weight/b"]
    own, other = torch.tensor(_added((1.0, standard(BASE)), (0.3, standard(EXTRA)))), torch.tensor(standard(OTHER))
    first = float((other @ (other - own)) / (own - other).square().sum())
    assert credited.metrics["balance/weight/a"] == pytest.approx(min(max(first, 0.0), 1.0), abs=1e-5)


def _tensors(rewards: dict[str, list[float]]) -> dict[str, Tensor]:
    return {name: torch.tensor([row]) for name, row in rewards.items()}


def test_min_norm_finds_the_known_shortest_combination() -> None:
    method = build({**BALANCE, "unit": False})
    credited = method.credit(scored(_tensors(KNOWN)))
    # The guard of 1e-4 stands beside a std of 1.29.
    expected = [0.13669353, -0.22782255, -0.13669353, 0.22782255]
    assert credited.advantage.tolist() == pytest.approx(expected, rel=2e-4)
    weights = [credited.metrics[f"balance/weight/{name}"] for name in KNOWN]
    assert weights == pytest.approx([9 / 34, 9 / 34, 16 / 34], abs=1e-5)
    assert credited.metrics["balance/min_norm"] == pytest.approx(0.14117647, rel=4e-4)
    assert credited.metrics["balance/conflict"] == pytest.approx(2 / 3)


def test_min_norm_with_unit_is_the_same_direction_at_unit_spread() -> None:
    (found,) = advantages(build(BALANCE), scored(_tensors(KNOWN)))
    _near(found, standard([0.13669353, -0.22782255, -0.13669353, 0.22782255]))


@pytest.mark.parametrize("space", ["batch", "group"])
def test_two_rewards_of_equal_spread_get_one_half_each(space: str) -> None:
    rewards = torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(0))
    rewards = {"a": rewards[0], "b": 50 * rewards[1]}
    credited = build({**BALANCE, "space": space, "unit": False}).credit(scored(rewards))
    assert credited.metrics["balance/weight/a"] == pytest.approx(0.5, abs=1e-3)
    rows = zip(rewards["a"].tolist(), rewards["b"].tolist(), strict=True)
    half = [_added((0.5, standard(a)), (0.5, standard(b))) for a, b in rows]
    assert_close(credited.advantage.reshape(3, 6), torch.tensor(half), atol=1e-3, rtol=0)


def _many(n: int = 5, k: int = 4) -> dict[str, Tensor]:
    """Rewards that differ in spread from prompt to prompt and partly oppose each other."""
    rewards = torch.randn(k, n, 6, generator=torch.Generator().manual_seed(3))
    rewards[1] = -rewards[0] + 0.5 * rewards[1]
    rewards = rewards * torch.logspace(-1, 1, n)[:, None]
    return {f"r{i}": row for i, row in enumerate(rewards)}


def _uneven() -> dict[str, Tensor]:
    """All rewards agree at one prompt; at the others the third is nearly the opposite of the first two together."""
    generator = torch.Generator().manual_seed(274)
    rewards = torch.randn(3, 6, 4, generator=generator)
    rewards[2, 1:] = -0.55 * (rewards[0, 1:] + rewards[1, 1:]) + 0.1 * torch.randn(5, 4, generator=generator)
    rewards[1:, 0] = rewards[0, 0]
    return {f"r{i}": row for i, row in enumerate(rewards)}


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("scale", ["group", "global", "max_group"])
@pytest.mark.parametrize("space", ["batch", "group"])
@pytest.mark.parametrize("rewards", [_many(), _uneven()], ids=["many", "uneven"])
def test_no_reward_loses_along_a_min_norm_advantage(
    rewards: dict[str, Tensor], space: str, scale: str, unit: bool
) -> None:
    given = scored(rewards, {name: 0.5 + i for i, name in enumerate(rewards)})
    found = advantages(build({**BALANCE, "space": space, "scale": scale, "unit": unit}, limit=50.0), given)
    alone = build({"name": "combine", "scale": scale}, limit=50.0)
    own = torch.tensor([advantages(alone, scored({"r": row})) for row in rewards.values()])
    products = (own * torch.tensor(found)).sum(dim=2)
    least = products.min() if space == "group" else products.sum(dim=1).min()
    # The shortest combination is found to about 1e-7; a nearly empty one is lifted to unit spread with what is off.
    assert float(least) > -1e-3
    assert float(torch.tensor(found).abs().max()) > 0.01


def test_each_group_finds_a_balance_of_its_own() -> None:
    rewards = _many()
    method = build({**BALANCE, "space": "group", "unit": False})
    found = method.credit(scored(rewards)).advantage.reshape(5, 6)
    for p in range(5):
        alone = method.credit(scored({name: r[p : p + 1] for name, r in rewards.items()})).advantage
        assert_close(found[p], alone, atol=1e-5, rtol=1e-4)
    whole = build({**BALANCE, "space": "batch", "unit": False}).credit(scored(rewards))
    assert not torch.allclose(whole.advantage.reshape(5, 6), found, atol=0.05)


ORTHOGONAL = {"a": torch.tensor([[1.0, -1.0, 0.0, 0.0]]), "b": torch.tensor([[0.0, 0.0, 1.0, -1.0]])}


@pytest.mark.parametrize(("one", "other"), [(1.0, 1.0), (2.0, 1.0), (0.5, 2.0)])
def test_the_users_weights_ask_for_more_of_a_reward(one: float, other: float) -> None:
    """Of two rewards that have nothing to do with each other, each counts in proportion to its weight."""
    for space in ("batch", "group"):
        method = build({**BALANCE, "space": space})
        (found,) = advantages(method, scored(ORTHOGONAL, {"a": one, "b": other}))
        assert found[0] / found[2] == pytest.approx(one / other, rel=1e-3)


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_equal_weights_change_nothing_about_a_min_norm_advantage(factor: float) -> None:
    method = build({**BALANCE, "unit": False})
    (found,) = advantages(method, scored(_tensors(KNOWN), dict.fromkeys(KNOWN, factor)))
    assert found == pytest.approx([0.13669353, -0.22782255, -0.13669353, 0.22782255], rel=2e-4)


def test_what_is_emphasised_now_counts_more_in_a_min_norm_advantage() -> None:
    """Two prompts of one batch: the first still learns `a`, the second has passed it on to `b`."""
    low, high = ORTHOGONAL["a"] / 20 + 0.2, ORTHOGONAL["a"] / 20 + 0.8
    rewards = {"a": torch.cat([low, high]), "b": (ORTHOGONAL["b"] / 20 + 0.5).expand(2, 4)}
    pace = {"name": "self_paced", "order": ["a", "b"], "thresholds": [0.5, 0.5], "keep": 0.1}
    early, late = advantages(build(pace, BALANCE), scored(rewards))
    assert early[0] > 3 * early[2] > 0
    assert late[2] > 3 * late[0] > 0


@pytest.mark.parametrize("setting", [{"space": "group"}, {"unit": False}])
@pytest.mark.parametrize("form", ["gdpo", "sum"])
def test_what_only_min_norm_reads_is_refused_elsewhere(form: str, setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"belong to form: min_norm, but form is {form}"):
        build({"name": "combine", "form": form, **setting})


@pytest.mark.parametrize(("form", "scale"), [("gdpo", "global"), ("sum", "group"), ("min_norm", "global")])
def test_each_form_has_a_unit_by_default(form: str, scale: str) -> None:
    def found(**more: str) -> list[list[float]]:
        return advantages(build({"name": "combine", "form": form, **more}), scored(_many()))

    assert found() == found(scale=scale)
    assert found() != found(scale="group" if scale == "global" else "global")


def _started(model: Any, method: Any) -> None:
    for role in sorted(method.slots.needs):
        model.reference.start(role)
    method.begin((), never)


def _offset(model: Any, by: float) -> None:
    with torch.no_grad():
        model.network.offset += by


KL = {"name": "kl", "weight": 0.1}


def test_an_adaptive_weight_rises_and_falls_and_stays_inside_the_dead_band(gaussian: Make) -> None:
    model, method = gaussian(), build({**KL, "target": 0.01})
    _started(model, method)
    weight = 0.1
    for divergence, factor in (
        (0.02, 1.5),
        (0.5, 1.5),
        (0.0149, 1.0),
        (0.0068, 1.0),
        (0.01, 1.0),
        (0.006, 1 / 1.5),
        (0.0, 1 / 1.5),
    ):
        weight *= factor
        assert method.after(model.reference, {"reference_kl": divergence})["kl_weight"] == pytest.approx(
            weight, rel=1e-5
        )
        assert float(method.state()["kl/weight"]) == pytest.approx(weight, rel=1e-5)
    # An iteration that taught nothing has measured nothing.
    method.after(model.reference, {"updated": 0.0})
    assert float(method.state()["kl/weight"]) == pytest.approx(weight, rel=1e-5)


def test_without_a_target_the_weight_stays(gaussian: Make) -> None:
    model, method = gaussian(), build(KL)
    _started(model, method)
    assert "kl_weight" not in method.after(model.reference, {"reference_kl": 100.0})
    assert float(method.state()["kl/weight"]) == pytest.approx(0.1)


def test_the_adapted_weight_is_the_one_that_pulls_also_after_a_restart(gaussian: Make) -> None:
    model, method = gaussian(side=2, bins=4), build({**KL, "target": 0.01, "form": "velocity"})
    _started(model, method)
    credited = batch(model, method)
    _offset(model, 0.2)
    plain = sum(loss.value.item() for loss in build().losses(model, credited, 0, 32))
    for n in range(3):
        again = build({**KL, "target": 0.01, "form": "velocity"})
        again.load(method.state())
        for one in (method, again):
            found = sum(loss.value.item() for loss in one.losses(model, credited, 0, 32))
            assert found - plain == pytest.approx(0.1 * 1.5**n * 0.04, rel=1e-3)
        method.after(model.reference, {"reference_velocity": 1.0})


def test_the_average_reference_is_the_exact_mean(gaussian: Make) -> None:
    model, method = gaussian(bins=2), build({**KL, "reference": "average", "decay": 0.8})
    _started(model, method)
    kept = torch.zeros(2, 3, 1, 1, 1)
    for step in range(4):
        move(model, 0.5, f"step {step}")
        method.after(model.reference, {})
        kept = 0.8 * kept + 0.2 * model.network.offset.detach()
        assert_close(model.reference.state()["reference/offset"], kept)


def _at_reference(model: Any) -> bool:
    return torch.equal(model.reference.state()["reference/offset"], model.network.offset)


def test_the_reference_is_reset_by_count_and_by_divergence(gaussian: Make) -> None:
    model, method = gaussian(), build({**KL, "reference": "reset", "every": 3, "above": 0.5})
    _started(model, method)
    found = []
    for divergence in (0.1, 0.1, 0.1, 0.1, 0.6, 0.1, 0.1, 0.5):
        _offset(model, 0.1)
        reset = method.after(model.reference, {"reference_kl": divergence})["reference_reset"]
        assert _at_reference(model) == (reset == 1)
        found.append(int(reset))
    # At the third; at the fifth by divergence; at the third after that.
    assert found == [0, 0, 1, 0, 1, 0, 0, 1]


def test_a_starting_reference_stays(gaussian: Make) -> None:
    model, method = gaussian(), build(KL)
    _started(model, method)
    for _ in range(20):
        _offset(model, 0.1)
        method.after(model.reference, {"reference_kl": 9.0})
    assert not model.reference.state()["reference/offset"].any()


@pytest.mark.parametrize("form", ["step", "velocity"])
@pytest.mark.parametrize("kind", ["flow", "cps"])
def test_the_pull_is_its_divergence_and_has_its_gradient(gaussian: Make, form: str, kind: str) -> None:
    weight = 3.0
    model = gaussian(side=2, bins=20, var=0.6)
    free, pulled = (build(*modules, kind=kind, clip=0.5) for modules in ([], [{**KL, "weight": weight, "form": form}]))
    _started(model, pulled)
    credited = precise(model, batch(model, free))
    move(model, 0.1, "reference")
    model.reference.start()
    move(model, 0.2)
    t = credited.trajectories
    condition = t.condition
    apart = []
    for k in range(len(t.x)):
        with torch.no_grad():
            here = model.velocity(t.x[k], t.sigma[k], condition)
            with model.reference.on():
                there = model.velocity(t.x[k], t.sigma[k], condition)
        square = (here - there).square().flatten(1).mean(dim=1)
        if form == "step":
            gain = _gain(kind, t.sigma[k], t.sigma_next[k], t.eta)
            square = square * gain**2 / (2 * t.std[k] ** 2)
        apart.append(square)

    def pull() -> float:
        return loss_and_gradient(model, pulled, credited)[0] - loss_and_gradient(model, free, credited)[0]

    assert pull() == pytest.approx(weight * float(torch.stack(apart).mean()), rel=1e-9)
    with_pull, without = (loss_and_gradient(model, one, credited)[1] for one in (pulled, free))
    towards = {key: rng.normal(g.shape, seed=rng.seed_for(2, key)).double() for key, g in without.items()}
    expected = sum(float(((with_pull[key] - without[key]) * towards[key]).sum()) for key in towards)
    ends = []
    for h in (1e-4, -2e-4):
        with torch.no_grad():
            for key, p in trainable(model.network).items():
                p += h * towards[key]
        ends.append(pull())
    # A parabola: central differences are exact up to rounding.
    assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(expected, rel=1e-7)


def _gain(kind: str, sigma: Tensor, after: Tensor, eta: float) -> Tensor:
    if kind == "cps":
        return (1 - after) * sigma - after * math.cos(eta * math.pi / 2) * (1 - sigma)
    rate = eta * (sigma / (1 - torch.where(sigma == 1, after, sigma))).sqrt()
    return (sigma - after) * (1 + rate**2 * (1 - sigma) / (2 * sigma))


@pytest.mark.parametrize("method", ["nft", "awm", "crd", "dgpo"])
def test_velocity_pulls_work_without_steps(gaussian: Make, method: str) -> None:
    model = gaussian(side=2)
    free, pulled = (build(*m, method=method) for m in ([], [{**KL, "weight": 2.0, "form": "velocity"}]))
    _started(model, pulled)
    credited = batch(model, free)
    _offset(model, 0.1)
    moved = model.network.offset.detach().clone()
    elements = moved.numel()
    with_pull, without = (gradient(model, one, credited)["offset"] for one in (pulled, free))
    assert_close(with_pull - without, 2.0 * 2 * moved / elements, atol=1e-5, rtol=1e-3)
    with pytest.raises(BadConfig, match=r"has no recorded steps, but a module needs a divergence of recorded steps"):
        build(KL, method=method)


def test_two_penalties_of_one_form_are_refused_and_of_two_forms_are_not() -> None:
    with pytest.raises(BadConfig, match=r"two penalties on the step difference to the reference; keep one of them"):
        build(KL, kl=0.1)
    both = build({**KL, "form": "velocity"}, kl=0.1)
    assert [penalty.name for penalty in both.slots.penalties] == ["reference_kl", "reference_velocity"]
    with pytest.raises(BadConfig, match=r"'gardo' and 'kl' both decide 'reference'"):
        build({"name": "gardo", "main": "first"}, KL)


GARDO = {"name": "gardo", "main": "first", "share": 0.25, "most": 0.3}
PROMPTS = Prompts(requests(("a", "b", "c", "d")), 4)


def _ranks(values: list[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda i: values[i])
    return [order.index(i) / (len(values) - 1) for i in range(len(values))]


def _most_disputed(rewards: dict[str, Tensor], count: int) -> list[int]:
    """Samples whose rank under the first reward stands highest above their mean rank under the others."""
    ranks = {name: _ranks(r.flatten().tolist()) for name, r in rewards.items()}
    main, others = ranks.pop("first"), list(ranks.values())
    apart = [m - sum(o[i] for o in others) / len(others) for i, m in enumerate(main)]
    return sorted(sorted(range(len(apart)), key=lambda i: -apart[i])[:count])


def _credited(model: Any, method: Any, rewards: dict[str, Tensor]) -> Credited:
    sampler = SamplerConfig(steps=6, shift=3.0)
    found = rollouts.rollout(model, PROMPTS, sampler, method.explore(6, PROMPTS, 0, 0), 0, 16)
    return method.credit(replace(scored(rewards), trajectories=found))


@pytest.mark.parametrize("form", ["step", "velocity"])
def test_exactly_the_most_disputed_samples_carry_the_penalty(gaussian: Make, form: str) -> None:
    model, weight = gaussian(side=2, bins=20), 0.7
    free, held = build(), build({**GARDO, "weight": weight, "form": form})
    model.reference.start()
    held.begin((), never)
    rewards = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    given = dict(zip(("first", "second", "third"), rewards, strict=True))
    credited = _credited(model, held, given)
    assert credited.metrics["gardo_share"] == 0.25
    chosen = _most_disputed(given, 4)
    assert credited.restraint is not None
    assert credited.restraint.nonzero().flatten().tolist() == chosen
    credited = precise(model, credited)
    model.reference.start()
    move(model, 0.05)
    t = credited.trajectories
    for with_, without in zip(
        rows_of(model, held, credited), rows_of(model, free, replace(credited, restraint=None)), strict=True
    ):
        assert (with_.k, with_.sample) == (without.k, without.sample)
        k, i = with_.k, with_.sample
        apart = 0.0
        if i in chosen:
            at = (t.x[k, i : i + 1], t.sigma[k, i : i + 1], t.condition[i : i + 1])
            with torch.no_grad():
                here = model.velocity(*at)
                with model.reference.on():
                    there = model.velocity(*at)
            gain = _gain("flow", t.sigma[k, i], t.sigma_next[k, i], t.eta)
            scale = gain**2 / (2 * t.std[k, i] ** 2) if form == "step" else 1.0
            apart = float((here - there).square().mean() * scale)
            assert not torch.equal(with_.gradient, without.gradient)
        else:
            assert torch.equal(with_.gradient, without.gradient)
        count = len(t.x) * 16
        assert with_.value - without.value == pytest.approx(weight * apart / count, rel=1e-6, abs=1e-15)


def test_the_held_back_share_adapts_to_the_disagreement_inside_its_bounds() -> None:
    method = build({**GARDO, "share": 0.1, "least": 0.05, "most": 0.2})
    method.begin((), never)
    rising = torch.arange(40.0).reshape(4, 10) / 40
    agree, oppose = {"first": rising, "second": rising}, {"first": rising, "second": rising.flip((0, 1))}
    method.credit(scored(agree))
    shares = []
    for _ in range(20):
        metrics = method.credit(scored(oppose)).metrics
        shares.append(float(method.state()["gardo/share"]))
    assert metrics["gardo_share"] == 0.2
    assert all(b > a or b == pytest.approx(0.2) for a, b in pairwise(shares))
    assert shares[0] < 0.11
    assert shares[-1] == pytest.approx(0.2)
    for _ in range(30):
        metrics = method.credit(scored(agree)).metrics
        assert float(method.state()["gardo/share"]) <= shares[-1]
        shares.append(float(method.state()["gardo/share"]))
    assert shares[-1] == pytest.approx(0.05)
    assert metrics["gardo_share"] == 0.05


def test_gardos_reference_follows_by_count_and_by_divergence(gaussian: Make) -> None:
    model, method = gaussian(), build({**GARDO, "every": 3, "above": 0.5})
    model.reference.start()
    method.begin((), never)
    found = []
    for divergence in (0.1, 0.1, 0.1, 0.1, 0.6, 0.1, 0.1, 0.1):
        _offset(model, 0.1)
        method.after(model.reference, {"reference_kl": divergence})
        found.append(_at_reference(model))
    assert found == [False, False, True, False, True, False, False, True]


def test_a_main_reward_that_is_missing_or_alone_is_refused() -> None:
    with pytest.raises(BadConfig, match=r"gardo's main reward is 'first' and needs at least one other .* has second"):
        configured(GARDO).check(demand({"second": UNIT, "third": UNIT}))
    with pytest.raises(BadConfig, match=r"gardo's main reward is 'first' .* the stage has first"):
        configured(GARDO).check(demand({"first": UNIT}))
    configured(GARDO).check(demand({"first": UNIT, "second": UNIT}))


DATA = {"name": "tests.parts.gaussian_data", "mean": 0.5}


@pytest.mark.parametrize("method", ["grpo", "nft"])
def test_ddrl_adds_its_weight_times_the_flow_matching_gradient_on_clips(
    gaussian: Make, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    weight, n = 0.3, 8
    model = gaussian(side=2, bins=4)
    free, tied = (
        build(*m, method=method) for m in ([], [{"name": "ddrl", "dataset": DATA, "weight": weight, "batch": n}])
    )
    _started(model, tied)
    credited = batch(model, free)
    move(model, 0.1)
    asked: list[tuple[Tensor, ...]] = []
    error = ddrl.error
    monkeypatch.setattr(ddrl, "error", lambda model, *at: asked.append(at) or error(model, *at))
    with_clips, without = (gradient(model, one, credited, micro_batch=5) for one in (tied, free))
    x0, noise, sigma = (torch.cat(parts) for parts in list(zip(*asked, strict=True))[:3])
    # Its own clips, each at a level and noise of its own.
    assert len(x0) == n
    assert float(x0.mean()) == pytest.approx(0.5, abs=4 / math.sqrt(x0.numel()))
    assert len(sigma.unique()) == len(noise[:, 0, 0, 0, 0].unique()) == n
    model.network.zero_grad(set_to_none=True)
    velocity = model.velocity(flow.interpolate(x0, noise, sigma), sigma, model.encode(requests("a" * n)))
    (velocity - (noise - x0)).square().mean().backward()
    for key, p in trainable(model.network).items():
        assert_close(with_clips[key] - without[key], weight * p.grad, atol=1e-6, rtol=1e-4)
    found = [loss.metrics["data_error"] for loss in tied.losses(model, credited, 0, 32) if "data_error" in loss.metrics]
    assert_close(found[0], (velocity - (noise - x0)).square().mean().detach())


def test_ddrl_draws_other_clips_for_each_update(gaussian: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, method = gaussian(side=2), build({"name": "ddrl", "dataset": DATA, "batch": 4})
    credited = batch(model, method)
    asked: list[tuple[Tensor, ...]] = []
    error = ddrl.error
    monkeypatch.setattr(ddrl, "error", lambda model, *at: asked.append(at) or error(model, *at))
    for seed in (0, 1, 0):
        list(method.losses(model, credited, seed, 32))
    first, other, again = asked
    assert all(torch.equal(one, two) for one, two in zip(first[:3], again[:3], strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(first[:3], other[:3], strict=True))


def test_a_dataset_without_clips_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    ours = {"name": "ddrl", "dataset": {"name": "prompt_file", "path": str(tmp_path / "not there.txt")}}
    with pytest.raises(BadConfig, match=r"ddrl needs clips, but the dataset 'prompt_file' has none"):
        configured(ours).check(demand({"first": UNIT}))
