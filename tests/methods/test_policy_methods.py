"""Policy-gradient methods: exact gradients, which steps and members train, and each one's own weights and masks."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from tests.training import Trained, replay
from torch import Tensor
from torch.testing import assert_close

from reelign import parts, rollouts
from reelign.batches import Credited, Prompts, Scored, requests
from reelign.core import flow, rng, transition
from reelign.engines.slots import Demand
from reelign.errors import BadConfig
from reelign.runtime.learner import LearnerConfig
from reelign.sampling import SamplerConfig
from reelign.weights import trainable

Make = Callable[..., Any]
SAMPLER = SamplerConfig(steps=6, shift=3.0)
EARLY = 5
"""Steps that can be stochastic: all but the last."""
KINDS = {"flow": 0.7, "dance": 0.3, "flash": 1.0, "longcat": 1.0, "cps": 0.7}
BINS = 20
"""Enough for each level of the sampler to have an offset of its own."""

ONE_STEP = ("flash_grpo", "longcat", "tempflow")
WINDOWED = ("grpo_guard", "pcpo", "flow_dppo", "flow_cps")
METHODS = ("flow_grpo", "dance_grpo", "mix_grpo", *ONE_STEP, *WINDOWED)
AMONG = {name: {"among": EARLY} for name in (*ONE_STEP, *WINDOWED)}
SETTINGS: dict[str, dict[str, Any]] = {**AMONG, "mix_grpo": {"window": 3}}
KEEP = {"dance_grpo": {"keep": 4}}


def _configured(name: str, **settings: Any) -> Any:
    return parts.configure("method", {"name": name, **SETTINGS.get(name, {}), **settings})


def _build(name: str, **settings: Any) -> Any:
    return parts.build("method", _configured(name, **settings))


def _prompts(n: int, group: int) -> Prompts:
    return Prompts(requests(f"prompt {i}" for i in range(n)), group)


def _batch(
    model: Any, method: Any, n: int = 4, group: int = 6, seed: int = 0, rewards: Tensor | None = None
) -> Credited:
    """A rollout whose rewards have nothing to do with it; the second group's are all equal."""
    exploration = method.explore(SAMPLER.steps, _prompts(n, group), seed, 0)
    found = rollouts.rollout(model, _prompts(n, group), SAMPLER, exploration, seed, micro_batch=n * group)
    if rewards is None:
        rewards = rng.normal((n, group), seed=rng.seed_for(seed, "reward"))
        rewards[1] = 0.25
    return method.credit(Scored(found, {"r": rewards}, {"r": 1.0}))


def precise(model: Any, batch: Credited) -> Credited:
    """The same latents as a record in float64, so that comparisons are free of rounding; the model follows."""
    model.network.double()
    t = batch.trajectories
    table, x, x_next = t.table.double(), t.x.double(), t.x_next.double()
    sigma, sigma_next = table[t.index], table[t.index + 1]
    condition = t.condition
    with torch.no_grad():
        steps = [
            transition.step(t.kind, x[k], model.velocity(x[k], sigma[k], condition), sigma[k], after, t.eta)
            for k, after in enumerate(sigma_next)
        ]
    record = replace(
        t,
        x0=t.x0.double(),
        x=x,
        x_next=x_next,
        sigma=sigma,
        sigma_next=sigma_next,
        log_prob=torch.stack([transition.log_prob(s, x_next[k]) for k, s in enumerate(steps)]),
        mean=torch.stack([s.mean for s in steps]),
        std=torch.stack([s.std for s in steps]),
        table=table,
    )
    return replace(batch, trajectories=record, advantage=batch.advantage.double())


def loss_and_gradient(
    model: Any, method: Any, batch: Credited, micro_batch: int = 1000
) -> tuple[float, dict[str, Tensor]]:
    model.network.zero_grad(set_to_none=True)
    total = 0.0
    for loss in method.losses(model, batch, 0, micro_batch):
        loss.value.backward()
        total += loss.value.item()
    return total, {n: p.grad.clone() for n, p in trainable(model.network).items()}


def move(model: Any, size: float, name: str = "move") -> None:
    with torch.no_grad():
        for key, p in trainable(model.network).items():
            p += size * rng.normal(p.shape, seed=rng.seed_for(0, name, key), dtype=p.dtype)


@dataclass(frozen=True)
class Row:
    """One sample at one of its recorded steps, alone in a forward pass."""

    k: int
    sample: int
    value: float
    gradient: Tensor


def rows_of(model: Any, method: Any, batch: Credited) -> list[Row]:
    """Each recorded step of each sample that trains, with the loss and the offsets' gradient of it alone."""
    steps, samples = batch.trajectories.index.shape
    places = [(k, i) for k in range(steps) for i in range(samples) if batch.teaches[i]]
    rows, taught = [], (loss for loss in method.losses(model, batch, 0, 1) if loss.share)
    for (k, i), loss in zip(places, taught, strict=True):
        model.network.zero_grad(set_to_none=True)
        loss.value.backward()
        rows.append(Row(k, i, loss.value.item(), model.network.offset.grad.clone()))
    return rows


def _kernel(kind: str, sigma: Tensor, after: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Std and |d mean / d velocity| of a step, as the papers write them."""
    length = sigma - after
    if kind == "cps":
        angle = eta * math.pi / 2
        return after * math.sin(angle), (1 - after) * sigma - after * math.cos(angle) * (1 - sigma)
    pole = torch.where(sigma == 1, after, sigma)
    rate = {
        "flow": eta * (sigma / (1 - pole)).sqrt(),
        "dance": torch.full_like(sigma, eta),
        "flash": eta * sigma,
        "longcat": (eta * (sigma / (1 - pole)).sqrt()).minimum(0.45 / length.sqrt()),
    }[kind]
    return rate * length.sqrt(), length * (1 + rate**2 * (1 - sigma) / (2 * sigma))


RAW: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "flash_grpo": lambda std, gain, length: std / gain,
    "longcat": lambda std, gain, length: std / gain,
    "tempflow": lambda std, gain, length: std,
    "pcpo": lambda std, gain, length: length * std / gain,
    "grpo_guard": lambda std, gain, length: 1 / length,
}
"""Weights over steps before they are brought to mean 1: (std, |d mean / d velocity|, length) -> weight."""


def _weights(name: str, kind: str, eta: float, table: Tensor) -> Tensor:
    sigma, after = table[:-2], table[1:-1]
    raw = RAW.get(name, lambda std, gain, length: torch.ones_like(std))
    found = raw(*_kernel(kind, sigma, after, eta), sigma - after)
    return found / found.mean()


def _closed_form(name: str, batch: Credited, var: float) -> dict[str, Tensor]:
    """``-1/N sum A w z / std d mean / d weight / D`` over the N recorded steps of samples that train.

    A velocity's offset moves the mean by the step's gain; the shift of the data's mean moves the velocity by
    ``-sigma var / S``. GRPO-Guard multiplies each log-ratio by its std.
    """
    t = batch.trajectories
    wide = (..., *[None] * (t.x.ndim - 2))
    z = (t.x_next - t.mean) / t.std[wide]
    gain = transition.gain(t.kind, t.sigma.flatten(), t.sigma_next.flatten(), t.eta).reshape(t.sigma.shape)
    scale = gain if name == "grpo_guard" else gain / t.std
    weight = _weights(name, t.kind, t.eta, t.table)[t.index]
    count = int(batch.teaches.sum()) * len(t.index) * t.x[0, 0].numel()
    pull = -(batch.advantage * batch.teaches * weight * scale / count)[wide] * z
    level = (t.sigma * BINS).long().clamp(max=BINS - 1)
    offset = torch.zeros(BINS, *pull.shape[2:], dtype=pull.dtype).index_add_(0, level.flatten(), pull.flatten(0, 1))
    slope = -t.sigma * var / ((1 - t.sigma) ** 2 * var + t.sigma**2)
    return {"offset": offset, "shift": (pull * slope[wide]).sum(dim=(0, 1))}


def _matches_closed_form(model: Any, name: str, method: Any, batch: Credited, var: float) -> None:
    found = loss_and_gradient(model, method, batch)[1]
    expected = _closed_form(name, batch, var)
    assert float(expected["offset"].abs().max()) > 1e-3
    for key, value in expected.items():
        # Only the order of float64 sums differs.
        assert_close(found[key], value, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_at_ratio_one_the_gradient_is_the_closed_form(gaussian: Make, name: str) -> None:
    model, method = gaussian(side=2, bins=BINS, mean=0.3, var=0.6), _build(name, **KEEP.get(name, {}))
    batch = precise(model, _batch(model, method))
    # Of four groups one has equal rewards only; DanceGRPO keeps four members of each other one.
    assert int(batch.teaches.sum()) == (12 if name == "dance_grpo" else 18)
    _matches_closed_form(model, name, method, batch, 0.6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["grpo_guard", "pcpo", "flash_grpo"])
def test_at_ratio_one_the_closed_form_holds_with_every_kernel(gaussian: Make, name: str, kind: str) -> None:
    model, method = gaussian(side=1, bins=BINS, var=0.6), _build(name, kind=kind, eta=KINDS[kind])
    _matches_closed_form(model, name, method, precise(model, _batch(model, method)), 0.6)


MOVED: dict[str, dict[str, Any]] = {"grpo_guard": {"clip": 2e-4}, "flow_dppo": {"limit_kl": 2e-4}}
"""Sizes at which some samples are held back and some are not; the clip of the others is 2e-3."""


@pytest.mark.parametrize("name", METHODS)
def test_after_the_weights_have_moved_the_gradient_is_that_of_the_loss(gaussian: Make, name: str) -> None:
    model, method = gaussian(side=2, bins=BINS, var=0.6), _build(name, **{"clip": 2e-3, **MOVED.get(name, {})})
    batch = precise(model, _batch(model, method))
    at_start = loss_and_gradient(model, method, batch)[1]
    move(model, 0.03)
    gradient = loss_and_gradient(model, method, batch)[1]
    rows = rows_of(model, method, batch)
    still = sum(not row.gradient.any() for row in rows)
    assert 0 < still < len(rows), "some samples are held back, and some are not"
    assert float((gradient["offset"] - at_start["offset"]).abs().max()) > 1e-3
    for direction in ("one", "two", "three"):
        steps = {key: rng.normal(p.shape, seed=rng.seed_for(1, direction, key)) for key, p in gradient.items()}
        expected = sum(float((gradient[key] * steps[key]).sum()) for key in gradient)
        ends = []
        for h in (1e-6, -2e-6):
            with torch.no_grad():
                for key, p in trainable(model.network).items():
                    p += h * steps[key]
            ends.append(loss_and_gradient(model, method, batch)[0])
        with torch.no_grad():
            for key, p in trainable(model.network).items():
                p += 1e-6 * steps[key]
        # Losses of size 1 are known to 1e-16, their differences over 2e-6 to 1e-10.
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(expected, abs=1e-7, rel=1e-5)


def test_flow_grpo_trains_every_step_but_the_last(gaussian: Make) -> None:
    batch = _batch(gaussian(), _build("flow_grpo"))
    assert batch.trajectories.index.tolist() == [[k] * 24 for k in range(EARLY)]


def test_flow_grpo_starts_each_sample_and_dance_grpo_each_prompt_from_a_noise_of_its_own(gaussian: Make) -> None:
    for name, alike in {"flow_grpo": False, "dance_grpo": True}.items():
        x = _batch(gaussian(), _build(name, **({"fraction": 1.0} if alike else {}))).trajectories.x[0]
        first = x.reshape(4, 6, *x.shape[1:])[:, :1]
        assert torch.equal(first.expand(4, 6, *x.shape[1:]).flatten(0, 1), x) == alike
        assert len(first.unique(dim=0)) == 4


def test_dance_grpo_trains_a_share_of_its_stochastic_steps_drawn_anew(gaussian: Make) -> None:
    method, prompts = _build("dance_grpo"), _prompts(3, 4)
    found = [method.explore(16, prompts, seed, 0) for seed in range(12)]
    assert {(e.first, e.width) for e in found} == {((0, 0, 0), 15)}, "all but the last are stochastic"
    assert {len(e.record) for e in found} == {9}, "the whole part of 0.6 of 15"
    assert len({e.record for e in found}) == 12
    assert {k for e in found for k in e.record} == set(range(15))
    model, few = gaussian(), _build("dance_grpo", fraction=0.6)
    batch = _batch(model, few)
    trained = few.explore(SAMPLER.steps, _prompts(4, 6), 0, 0).record
    assert batch.trajectories.index.tolist() == [[k] * 24 for k in trained]


def test_a_step_of_dance_grpo_that_does_not_train_is_stochastic_all_the_same(gaussian: Make) -> None:
    found = _batch(gaussian(), _build("dance_grpo", fraction=0.2)).trajectories
    assert len(found.x) == 1
    # From a shared start, members of a group differ after each step's own noise.
    group = found.x0.reshape(4, 6, -1)
    assert float(group.std(dim=1).min()) > 0.01
    whole = _batch(gaussian(), _build("dance_grpo", fraction=1.0)).trajectories
    assert torch.equal(found.x0, whole.x0)


def test_the_window_of_mix_grpo_slides_to_the_end_and_starts_again(gaussian: Make) -> None:
    method, prompts = _build("mix_grpo", window=2, every=3), _prompts(3, 4)
    found = [method.explore(SAMPLER.steps, prompts, seed=i, iteration=i) for i in range(15)]
    assert all(set(e.first) == {e.first[0]} and e.width == 2 for e in found)
    assert [e.first[0] for e in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0, 0, 0]
    last = rollouts.rollout(gaussian(), prompts, SAMPLER, found[9], 0)
    assert last.index[:, 0].tolist() == [3, 4], "never the step that ends on data"


@pytest.mark.parametrize("name", [*ONE_STEP, *WINDOWED])
def test_a_group_shares_its_steps_and_prompts_differ(gaussian: Make, name: str) -> None:
    method = _build(name, among=4)
    width = 1 if name in ONE_STEP else 2
    batch = _batch(gaussian(), method, n=12)
    index = batch.trajectories.index.reshape(width, 12, 6)
    assert bool((index == index[:, :, :1]).all())
    assert index[0].unique().tolist() == list(range(4 - width + 1)), "among the first four, and every place is drawn"
    assert bool((index.diff(dim=0) == 1).all())
    again = method.explore(SAMPLER.steps, _prompts(12, 6), 1, 0).first
    assert again != tuple(index[0, :, 0].tolist()), "drawn anew for each rollout"


@pytest.mark.parametrize("name", [*WINDOWED, "mix_grpo"])
def test_a_window_that_reaches_the_last_step_is_refused_before_any_compute(name: str) -> None:
    with pytest.raises(BadConfig, match=r"6 stochastic steps do not fit among the first 5 of 6"):
        _configured(name, window=6, **({} if name == "mix_grpo" else {"among": 9})).check(
            Demand(SamplerConfig(steps=6), 2, 4, 1, 32, {})
        )


def test_best_and_worst_of_n_train_exactly_those_members(gaussian: Make) -> None:
    model, method = gaussian(side=2, bins=BINS), _build("dance_grpo", keep=4)
    rewards = torch.stack([torch.randperm(6, generator=torch.Generator().manual_seed(i)) for i in range(4)]).float()
    batch = _batch(model, method, rewards=rewards)
    everyone = _batch(model, _build("dance_grpo"), rewards=rewards)
    assert bool(everyone.teaches.all())
    chosen = ((rewards <= 1) | (rewards >= 4)).flatten()
    # They keep the advantages that they had in the whole group.
    for found, whole in ((batch.trajectories.x0, everyone.trajectories.x0), (batch.advantage, everyone.advantage)):
        assert torch.equal(found[batch.teaches], whole[chosen])
    only = replace(everyone, teaches=chosen)
    expected = loss_and_gradient(model, method, only)[1]
    for key, value in loss_and_gradient(model, method, batch)[1].items():
        assert_close(value, expected[key], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("keep", [3, 6])
def test_an_odd_number_of_extremes_or_more_than_the_group_is_refused(keep: int) -> None:
    demand = Demand(SamplerConfig(steps=6), 2, 4, 1, 32, {"r": (0.0, 1.0)})
    with pytest.raises(BadConfig, match=rf"method.keep is {keep}, but it must be even .* the stage's group of 4"):
        _configured("dance_grpo", keep=keep).check(demand)


UNITS = {"dance_grpo": "group", "mix_grpo": "group", "tempflow": "group", "longcat": "max_group"}
"""Whose spread is the unit of an advantage; the others use the whole batch's."""


@pytest.mark.parametrize("name", METHODS)
def test_the_unit_of_an_advantage_is_the_papers(gaussian: Make, name: str) -> None:
    rewards = rng.normal((4, 6), seed=3) * torch.tensor([[1.0], [10.0], [20.0], [30.0]])
    found = _batch(gaussian(), _build(name), rewards=rewards).advantage.reshape(4, 6)
    std = rewards.std(dim=1, keepdim=True)
    unit = {"group": std, "max_group": std.max(), "global": std.square().mean().sqrt()}[UNITS.get(name, "global")]
    # The guard of 1e-4 against division by zero stands beside spreads of 1 and more.
    assert_close(found, (rewards - rewards.mean(dim=1, keepdim=True)) / unit, atol=0, rtol=5e-4)


@dataclass(frozen=True)
class Emphasis:
    """Of each step, by index: its length, its std, |d mean / d velocity|, and the measured gradient in units of noise.

    A sample with advantage A whose step drew z has a gradient of length ``|A| |z| measured / (N D)``.
    """

    length: Tensor
    std: Tensor
    gain: Tensor
    measured: Tensor


def _emphasis(model: Any, name: str, kind: str, among: int = EARLY) -> Emphasis:
    one = {} if name in ONE_STEP else {"window": 1}
    method = _build(name, kind=kind, eta=KINDS[kind], among=among, **one)
    batch = precise(model, _batch(model, method, n=20, group=2))
    t = batch.trajectories
    rows = rows_of(model, method, batch)
    by_step: dict[int, list[float]] = {}
    for row in rows:
        z = (t.x_next[row.k, row.sample] - t.mean[row.k, row.sample]) / t.std[row.k, row.sample]
        length = float(row.gradient.norm() / (z.norm() * batch.advantage[row.sample].abs()))
        by_step.setdefault(int(t.index[row.k, row.sample]), []).append(length * len(rows) * z.numel())
    assert sorted(by_step) == list(range(among))
    for values in by_step.values():
        assert max(values) == pytest.approx(min(values), rel=1e-9)
    before, after = t.table[:among], t.table[1 : among + 1]
    std, gain = _kernel(kind, before, after, KINDS[kind])
    measured = torch.tensor([by_step[k][0] for k in range(among)], dtype=torch.float64)
    return Emphasis(before - after, std, gain, measured)


def _all_equal(values: Tensor) -> None:
    assert_close(values, values.mean().expand_as(values), atol=0, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["flash_grpo", "longcat"])
def test_rectified_steps_have_gradients_of_one_size(gaussian: Make, name: str, kind: str) -> None:
    found = _emphasis(gaussian(side=1, bins=BINS), name, kind)
    _all_equal(found.measured)
    weight = found.measured * found.std / found.gain
    assert float(weight.mean()) == pytest.approx(1)
    assert bool((weight.diff() < 0).all()), "late steps are held back"


@pytest.mark.parametrize("kind", KINDS)
def test_pcpo_gives_steps_gradients_in_proportion_to_their_length(gaussian: Make, kind: str) -> None:
    found = _emphasis(gaussian(side=1, bins=BINS), "pcpo", kind)
    _all_equal(found.measured / found.length)
    assert float((found.measured * found.std / found.gain).mean()) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_tempflow_weighs_steps_in_proportion_to_the_noise_they_add(gaussian: Make, kind: str) -> None:
    found = _emphasis(gaussian(side=1, bins=BINS), "tempflow", kind)
    weight = found.measured * found.std / found.gain
    _all_equal(weight / found.std)
    assert float(weight.mean()) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_grpo_guard_weighs_steps_by_one_over_their_length(gaussian: Make, kind: str) -> None:
    found = _emphasis(gaussian(side=1, bins=BINS), "grpo_guard", kind)
    # Its log-ratios are multiplied by the std, so that noise enters by the gain alone.
    weight = found.measured / found.gain
    _all_equal(weight * found.length)
    assert float(weight.mean()) == pytest.approx(1)


@pytest.mark.parametrize("name", [*ONE_STEP, "pcpo", "grpo_guard"])
def test_weights_have_mean_one_over_the_steps_that_can_be_stochastic(gaussian: Make, name: str) -> None:
    found = _emphasis(gaussian(side=1, bins=BINS), name, "flow", among=3)
    unweighted = found.gain if name == "grpo_guard" else found.gain / found.std
    assert float((found.measured / unweighted).mean()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["flow_grpo", "mix_grpo", "flow_cps", "flow_dppo"])
def test_the_others_weigh_all_steps_alike(gaussian: Make, name: str) -> None:
    model, method = gaussian(side=1, bins=BINS), _build(name)
    batch = precise(model, _batch(model, method))
    for row in rows_of(model, method, batch):
        assert -row.value * int(batch.teaches.sum()) * len(batch.trajectories.x) == pytest.approx(
            float(batch.advantage[row.sample]), rel=1e-9
        )


def test_flow_dppo_stops_what_pushes_outwards_over_the_limit_and_nothing_else(gaussian: Make) -> None:
    limit = 1e-4
    model, method = gaussian(side=2, bins=BINS), _build("flow_dppo", limit_kl=limit)
    batch = precise(model, _batch(model, method))
    learner = Trained(model, LearnerConfig(lr=0.01))
    assert learner.learn(method, batch, 0, "here")["max_abs_log_ratio"] == 0
    for _ in range(2):
        assert learner.learn(method, batch, 0, "here")["max_abs_log_ratio"] > 0
    t = batch.trajectories
    seen = set()
    for row in rows_of(model, method, batch):
        with torch.no_grad():
            here = replay(model, t, row.k, slice(row.sample, row.sample + 1))
        moved = (here.mean[0] - t.mean[row.k, row.sample]) / t.std[row.k, row.sample]
        z = (t.x_next[row.k, row.sample] - t.mean[row.k, row.sample]) / t.std[row.k, row.sample]
        over = float(moved.square().mean() / 2) >= limit
        outward = float(batch.advantage[row.sample] * (moved * z - moved.square() / 2).mean()) > 0
        assert bool(row.gradient.any()) == (not (over and outward))
        seen.add((over, outward))
    assert len(seen) == 4, "over and under the limit, outwards and inwards"


@pytest.mark.parametrize("kind", KINDS)
def test_grpo_guards_statistic_is_the_shift_along_the_noise_whatever_the_kernel(gaussian: Make, kind: str) -> None:
    """``(log ratio + divergence) std = d mean . z / D`` only if std is that of the kernel in use."""
    model = gaussian(side=2, bins=BINS)
    method = _build("grpo_guard", kind=kind, eta=KINDS[kind], clip=10.0, rebalance=False)
    batch = precise(model, _batch(model, method))
    move(model, 0.2)
    t = batch.trajectories
    rows = rows_of(model, method, batch)
    for row in rows:
        with torch.no_grad():
            here = replay(model, t, row.k, slice(row.sample, row.sample + 1))
        shift = here.mean[0] - t.mean[row.k, row.sample]
        z = (t.x_next[row.k, row.sample] - t.mean[row.k, row.sample]) / t.std[row.k, row.sample]
        found = math.log(-row.value * len(rows) / float(batch.advantage[row.sample]))
        assert found == pytest.approx(float((shift * z).mean()), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_grpo_guards_statistic_has_mean_zero_and_the_width_of_the_shift(gaussian: Make, kind: str) -> None:
    n, elements, move = 1024, 12, 3.0
    model = gaussian(side=2, bins=1)
    method = _build("grpo_guard", kind=kind, eta=KINDS[kind], clip=10.0, window=1, among=1)
    batch = precise(model, _batch(model, method, n=n // 16, group=16, rewards=rng.normal((n // 16, 16), seed=0)))
    with torch.no_grad():
        model.network.offset += move
    t = batch.trajectories
    gain = float(_kernel(kind, t.sigma[:1, 0], t.sigma_next[:1, 0], KINDS[kind])[1])
    width = gain * move / math.sqrt(elements)  # |d mean| / D, as all elements move alike
    metrics = next(iter(method.losses(model, batch, 0, n))).metrics
    # exp of N(0, width^2): the mean is off by width^2 / 2. Five and four standard errors.
    assert float(metrics["ratio_mean"]) == pytest.approx(math.exp(width**2 / 2), abs=5 * width / math.sqrt(n))
    spread = math.exp(width**2 / 2) * math.sqrt(math.expm1(width**2))
    assert float(metrics["ratio_std"]) == pytest.approx(spread, rel=4 / math.sqrt(2 * n))
    # The plain log-ratio would be off by the divergence, many standard errors.
    drift = float((flow.expand_to(gain * move / t.std[0], t.x[0]) ** 2).mean() / 2 * t.std[0, 0])
    assert drift > 10 * width / math.sqrt(n)
