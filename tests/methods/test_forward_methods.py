"""Forward-process methods: gradients, where each one ends on Gaussian data, who rolls out, and what is refused."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.testing import assert_close

from reelign import parts, rollouts, sampling
from reelign.batches import Credited, Prompts, Scored, requests
from reelign.core import flow, rng, schedule
from reelign.core import gaussian as exact
from reelign.engines import forward
from reelign.engines.forward import Noised
from reelign.engines.slots import Demand
from reelign.errors import BadConfig
from reelign.forward_process import LevelConfig
from reelign.panel import Weighted
from reelign.runtime import plan
from reelign.runtime.learner import LearnerConfig
from reelign.runtime.local import Local
from reelign.runtime.work import StageSpec
from reelign.sampling import SamplerConfig
from reelign.weights import trainable

Make = Callable[..., Any]
SAMPLER = SamplerConfig(steps=32, shift=1.0)
RANGES = {"r": (-math.inf, math.inf)}
MEAN, VAR = 0.4, 0.2
ELEMENTS = 3
"""Of the latents whose fixed points are known here."""


def _configured(name: str, **settings: Any) -> Any:
    return parts.configure("method", {"name": name, **settings})


def _build(name: str, **settings: Any) -> Any:
    return parts.build("method", _configured(name, **settings))


def _prompts(n: int, group: int) -> Prompts:
    return Prompts(requests(f"prompt {i}" for i in range(n)), group)


def _batch(model: Any, method: Any, n: int, group: int, seed: int = 0) -> Credited:
    """Samples of the sampling weights, rewarded by the sum of their elements."""
    prompts = _prompts(n, group)
    with model.reference.on("sampled"):
        found = rollouts.rollout(model, prompts, SAMPLER, method.explore(SAMPLER.steps, prompts, seed, 0), seed, 10_000)
    rewards = found.x0.flatten(1).sum(dim=1).reshape(n, group)
    return method.credit(Scored(found, {"r": rewards}, {"r": 1.0}))


def _precise(model: Any, method: Any, n: int = 3, group: int = 4) -> Credited:
    """A batch in float64, so that comparisons are free of rounding; the model follows, and has moved since."""
    model.reference.start("sampled")
    batch = _batch(model, method, n, group)
    model.network.double()
    model.reference.start("sampled")
    with torch.no_grad():
        for key, p in trainable(model.network).items():
            p += 0.1 * rng.normal(p.shape, seed=rng.seed_for(0, "move", key))
    record = replace(batch.trajectories, x0=batch.trajectories.x0.double())
    return replace(batch, trajectories=record, advantage=batch.advantage.double())


def _gradient(model: Any, method: Any, batch: Credited, seed: int = 0, micro_batch: int = 10_000) -> dict[str, Tensor]:
    model.network.zero_grad(set_to_none=True)
    for loss in method.losses(model, batch, seed, micro_batch):
        loss.value.backward()
    return {n: p.grad.clone() for n, p in trainable(model.network).items() if p.grad is not None}


def _value(model: Any, method: Any, batch: Credited) -> float:
    return sum(loss.value.item() for loss in method.losses(model, batch, 0, 5))


def _noised(model: Any, method: Any, batch: Credited, **layout: bool) -> list[Noised]:
    """What the engine gives to a loss, draw by draw."""
    found: list[Noised] = []

    def keep(noised: Noised) -> Tensor:
        found.append(noised)
        return noised.error(noised.velocity)

    law = LevelConfig(law="uniform")
    list(forward.losses(keep, law, 2, **layout)(method.slots, {}, model, batch, 0, 10_000))
    return found


def _is_the_slope(model: Any, gradient: dict[str, Tensor], value: Callable[[], float]) -> None:
    """Central differences of a value in three directions, by steps of 1e-5; values of size 1 are known to 1e-16."""
    own = trainable(model.network)
    assert float(gradient["offset"].abs().max()) > 1e-3
    for name in ("one", "two", "three"):
        towards = {key: rng.normal(p.shape, seed=rng.seed_for(1, name, key)).double() for key, p in own.items()}
        ends = []
        for h in (1e-5, -2e-5, 1e-5):
            with torch.no_grad():
                for key, p in own.items():
                    p += h * towards[key]
            ends.append(value())
        slope = sum(float((gradient[key] * towards[key]).sum()) for key in own)
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope, abs=1e-8, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("nft", {"normalise": False, "beta": 0.7}), ("awm", {}), ("crd", {}), ("crd", {"shared": True, "beta": 5.0})],
)
def test_the_gradient_is_that_of_the_loss(gaussian: Make, name: str, settings: dict[str, Any]) -> None:
    model, method = gaussian(side=2, bins=4, var=0.6), _build(name, **settings)
    batch = _precise(model, method)
    _is_the_slope(model, _gradient(model, method, batch), lambda: _value(model, method, batch))


def test_dgpo_has_the_gradient_of_a_logistic_loss_on_groups(gaussian: Make) -> None:
    beta = 30.0
    model, method = gaussian(side=2, bins=4, var=0.6), _build("dgpo", beta=beta)
    batch = _precise(model, method)

    def logistic() -> float:
        total = 0.0
        for n in _noised(model, method, batch, shared=True, whole_groups=True):
            policy, sampled, credit = n.compared()
            better = (credit * (policy - sampled)).mean(dim=1)
            total -= torch.nn.functional.logsigmoid(-beta * better).mean().item() / 2
        return total / beta

    _is_the_slope(model, _gradient(model, method, batch), logistic)


def test_nft_as_released_has_the_gradient_of_errors_in_units_of_their_own_size(gaussian: Make) -> None:
    beta, limit = 0.7, 2.0
    model, method = gaussian(side=2, bins=4, var=0.6), _build("nft", beta=beta, limit=limit)
    batch = _precise(model, method)

    def errors(n: Noised) -> tuple[Tensor, Tensor]:
        """Of the good and the bad policy's clean predictions, element by element."""
        moved = beta * (n.velocity - n.sampled)
        level = flow.expand_to(n.sigma, moved)
        return level * (n.sampled + moved - n.target), level * (n.sampled - moved - n.target)

    with torch.no_grad():
        units = [[e.abs().flatten(1).mean(dim=1) for e in errors(n)] for n in _noised(model, method, batch)]

    def value() -> float:
        total = 0.0
        for n, (near, far) in zip(_noised(model, method, batch), units, strict=True):
            good, bad = (e.square().flatten(1).mean(dim=1) for e in errors(n))
            chance = 0.5 + 0.5 * (n.advantage / limit).clamp(-1, 1)
            total += ((chance * good / near + (1 - chance) * bad / far) / beta).mean().item() / 2
        return total

    _is_the_slope(model, _gradient(model, method, batch), value)


def _law(steps: int) -> float:
    """Variance of what the deterministic sampler gives; its mean is that of the data."""
    levels = schedule.sigmas(steps, SAMPLER.shift, torch.float64)
    return float(exact.moments(exact.chain("ode", levels, torch.zeros(steps).double(), MEAN, VAR))[1][-1])


def _pull(sigma: Any) -> Any:
    """Minus the covariance of an element's residual ``target - sampled velocity`` with x0, per variance of x0.

    The velocity ``B x + b`` is exact for the data and ``1 + B (1 - sigma) = sigma / S``.
    """
    return sigma / ((1 - sigma) ** 2 * VAR + sigma**2)


def _residual_var(sigma: float, var: float) -> float:
    """Variance of that residual if x0 has this variance: var / S where it is the data's."""
    return _pull(sigma) ** 2 * (var + ((1 - sigma) * VAR / sigma) ** 2)


def _train(model: Any, method: Any, rate: float, steps: int, n: int, group: int) -> Tensor:
    """Offsets after gradient steps by the method on samples of weights that stay, averaged over the steps.

    With one over the curvature as rate each step goes where its own samples say, from wherever it starts.
    """
    model.reference.start("sampled")
    model.network.shift.requires_grad_(False)
    found = []
    for step in range(steps):
        gradient = _gradient(model, method, _batch(model, method, n, group, step), seed=step)["offset"]
        with torch.no_grad():
            model.network.offset -= rate * gradient
        found.append(model.network.offset.detach().clone())
    return torch.stack(found).mean(dim=0)


BINS = 4
LEVELS = ((torch.arange(4000) + 0.5) / 4000).double().reshape(BINS, -1)
"""Fine levels, a row for each of the model's bins."""


def _is_near(found: Tensor, expected: Tensor) -> None:
    """Within three standard errors of 3000 noised samples in the lowest bin, and many more in the others."""
    own = found.reshape(BINS, ELEMENTS).mean(dim=1).double()
    assert_close(own, expected, atol=0.1 * float(expected.abs().max()), rtol=0)


def test_nft_ends_at_the_tilt_of_temperature_beta_times_limit(gaussian: Make) -> None:
    """``2 / beta Cov(r, target | level)``, with r = 1/2 + A / (2 limit), A in units of the reward's spread.

    A group's mean in A takes 1 / g of the covariance away. Four standard deviations are clipped too seldom to matter.
    """
    group, beta, limit = 4, 0.5, 4.0
    model = gaussian(mean=MEAN, var=VAR, bins=BINS)
    method = _build("nft", normalise=False, beta=beta, limit=limit, draws=2)
    found = _train(model, method, BINS * ELEMENTS / (2 * beta), 3, 500, group)
    shared = math.sqrt(_law(SAMPLER.steps) / ELEMENTS) * (group - 1) / group
    _is_near(found, -_pull(LEVELS).mean(dim=1) * shared / (beta * limit))


def test_anchored_matching_ends_at_the_covariance_over_beta(gaussian: Make) -> None:
    """``Cov(A, target) / beta`` where one offset serves all latents, as advantages have mean 0.

    Cutting a Gaussian A at the limit multiplies its covariances by the chance of being inside (Stein).
    """
    group, beta, limit = 4, 1.5, 1.0
    model = gaussian(mean=MEAN, var=VAR, bins=BINS)
    found = _train(model, _build("awm", draws=2), BINS * ELEMENTS / (2 * beta), 3, 500, group)
    inside = math.erf(limit / math.sqrt(2 * (group - 1) / group))
    shared = math.sqrt(_law(SAMPLER.steps) / ELEMENTS) * (group - 1) / group * inside
    _is_near(found, -_pull(LEVELS).mean(dim=1) * shared / beta)


@pytest.mark.parametrize("sigma", [0.25, 0.6])
def test_crd_with_separate_noises_ends_at_the_regression_of_advantages_on_residuals(
    gaussian: Make, sigma: float
) -> None:
    """``Cov(e, A) D / (2 beta Var e)`` per element: ``-sigma k D / (2 beta)`` where samples have the data's law."""
    group, beta, var = 4, 3.0, _law(SAMPLER.steps)
    model = gaussian(mean=MEAN, var=VAR)
    method = _build("crd", beta=beta, draws=2, levels={"law": "uniform", "low": sigma, "high": sigma})
    curvature = 8 * beta**2 * _residual_var(sigma, var) * (group - 1) / (group * ELEMENTS**2)
    found = _train(model, method, 1 / curvature, 2, 500, group)
    k = 1 / math.sqrt(ELEMENTS * var)
    expected = -_pull(sigma) * var * k * ELEMENTS / (2 * beta * _residual_var(sigma, var))
    assert expected == pytest.approx(-sigma * k * ELEMENTS / (2 * beta), rel=0.25)
    # 8000 noised samples: four standard errors.
    assert found.mean().item() == pytest.approx(expected, rel=0.07)


@pytest.mark.parametrize("sigma", [0.25, 0.6])
def test_crd_with_shared_noise_ends_where_implicit_rewards_are_the_advantages(gaussian: Make, sigma: float) -> None:
    """``-k D S / (2 beta sigma)`` per element, and nothing of the loss is left."""
    group, beta, n = 4, 3.0, 64
    model = gaussian(mean=MEAN, var=VAR)
    method = _build("crd", beta=beta, shared=True, levels={"law": "uniform", "low": sigma, "high": sigma})
    model.reference.start("sampled")
    model.network.shift.requires_grad_(False)
    batch = _batch(model, method, n, group)
    rewards = batch.trajectories.x0.flatten(1).sum(dim=1).reshape(n, group)
    k = float(batch.advantage[0] / (rewards - rewards.mean(dim=1, keepdim=True)).flatten()[0])
    pull = _pull(sigma)
    rate = ELEMENTS**2 * group / (8 * beta**2 * pull**2 * _law(SAMPLER.steps) * (group - 1))
    for step in range(20):
        gradient = _gradient(model, method, batch, seed=step)["offset"]
        with torch.no_grad():
            model.network.offset -= rate * gradient
    expected = torch.full_like(model.network.offset, -k * ELEMENTS / (2 * beta * pull))
    # Exact up to float32: the noise cancels within a group.
    assert_close(model.network.offset.detach(), expected, atol=0, rtol=1e-3)
    assert _value(model, method, batch) < 1e-6


@pytest.mark.parametrize("name", ["crd", "dgpo"])
def test_members_that_are_compared_share_their_level(
    gaussian: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model, method = gaussian(), _build(name, draws=1)
    model.reference.start("sampled")
    batch = _batch(model, method, 5, 4)
    seen: list[tuple[Tensor, Tensor]] = []
    velocity = model.velocity
    monkeypatch.setattr(model, "velocity", lambda x, sigma, *more: seen.append((x, sigma)) or velocity(x, sigma, *more))
    list(method.losses(model, batch, 0, 100))
    x, sigma = seen[0]
    level = flow.expand_to(sigma, x)
    noise = ((x - (1 - level) * batch.trajectories.x0) / level).reshape(5, 4, -1)
    assert bool((sigma.reshape(5, 4) == sigma[::4, None]).all())
    assert len(sigma.unique()) == 5
    alike = float((noise - noise[:, :1]).abs().max()) < 1e-3
    assert alike == (name == "dgpo"), "a noise of its own for each member with CRD, one for the group with DGPO"


SCHEDULES = {
    "nft": (0.0, 0.001, 0.5),
    "awm": (0.0, 0.001, 0.5),
    "crd": (0.25, 0.005, 0.999),
    "dgpo": (0.25, 0.005, 0.999),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_sampling_weights_follow_more_and_more_slowly(gaussian: Make, name: str) -> None:
    start, slope, most = SCHEDULES[name]
    model, method = gaussian(bins=2), _build(name)
    assert method.slots.needs == {"sampled"}
    model.reference.start("sampled")
    kept = torch.zeros(2, 3, 1, 1, 1)
    for n in range(4):
        with torch.no_grad():
            model.network.offset += 1.0
        decay = start + slope * n
        assert method.after(model.reference, {})["sampled_decay"] == pytest.approx(decay)
        kept = decay * kept + (1 - decay) * model.network.offset.detach()
        assert_close(model.reference.state()["sampled/offset"], kept)
    again = _build(name)
    again.load(method.state())
    assert again.after(model.reference, {})["sampled_decay"] == pytest.approx(start + 4 * slope)
    again.load({"follow/iterations": torch.tensor(1e5)})
    assert again.after(model.reference, {})["sampled_decay"] == most


@pytest.mark.parametrize("name", [*SCHEDULES, "grpo"])
def test_the_rollout_is_by_the_sampling_weights(gaussian: Make, name: str) -> None:
    model, method, prompts = gaussian(side=2), _build(name), _prompts(2, 4)
    rewards = (TypeAdapter(Weighted).validate_python({"name": "tests.parts.linear_reward:build"}),)
    items = plan.rollout(prompts, method.explore(SAMPLER.steps, prompts, 0, 0), 0, 8)
    with Local(model).stage(StageSpec(parts.configure("method", name), LearnerConfig(), rewards)) as work:
        before = work.rollout(items, SAMPLER, "here").trajectories.x0
        with torch.no_grad():
            model.network.offset += 0.5
        after = work.rollout(items, SAMPLER, "here").trajectories.x0
        assert torch.equal(before, after) == (name != "grpo")
        if name != "grpo":
            model.reference.start("sampled")
            assert not torch.equal(work.rollout(items, SAMPLER, "here").trajectories.x0, before)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rollout_is_deterministic_and_starts_each_sample_from_its_own_noise(gaussian: Make, name: str) -> None:
    model = gaussian()
    model.reference.start("sampled")
    found = _batch(model, _build(name), 2, 4).trajectories
    assert found.x.shape[0] == 0
    seeds = [rng.seed_for(0, "initial", i, member) for i in range(2) for member in range(4)]
    assert_close(found.x0, sampling.sample(model, found.condition, seeds, SAMPLER))


def _demand(micro_batch: int) -> Demand:
    return Demand(SamplerConfig(steps=8), 2, 4, 1, micro_batch, RANGES)


@pytest.mark.parametrize("name", ["crd", "dgpo"])
def test_a_micro_batch_smaller_than_the_group_is_refused_where_members_are_compared(name: str) -> None:
    with pytest.raises(BadConfig, match=r"learner.micro_batch is 3, .* the 4 members of a group .* at least the group"):
        _configured(name).check(_demand(3))
    _configured(name).check(_demand(4))


@pytest.mark.parametrize("name", ["nft", "awm"])
def test_methods_that_compare_nobody_take_any_micro_batch(name: str) -> None:
    _configured(name).check(_demand(1))


@pytest.mark.parametrize(("beta", "limit"), [(1.0, 1.0), (2.0, 5.0)])
def test_an_anchor_that_advantages_could_outweigh_is_refused(beta: float, limit: float) -> None:
    with pytest.raises(BadConfig, match=rf"method.beta is {beta:g}, .* down to {-limit:g} .* above {limit:g}"):
        _configured("awm", beta=beta, limit=limit).check(_demand(4))
    _configured("awm", beta=limit + 0.1, limit=limit).check(_demand(4))


def test_the_anchor_holds_against_advantages_that_a_module_has_lifted(gaussian: Make) -> None:
    """The curvature of the loss in an offset is ``2 (beta + mean A) / D``; one lifted sample must not turn it over."""
    model = gaussian()
    method = _build("awm", modules=[{"name": "bpgo", "alpha": 0.9, "slope": 50.0, "share": 0.0}])
    model.reference.start("sampled")
    batch = _batch(model, method, 2, 4)
    # What a reliability of 1.9 would make of the lowest advantage.
    low = replace(batch, advantage=torch.full_like(batch.advantage, -1.9))
    slopes = []
    for offset in (0.0, 1.0):
        with torch.no_grad():
            model.network.offset.fill_(offset)
        slopes.append(_gradient(model, method, low)["offset"])
    assert bool((slopes[1] > slopes[0]).all())
