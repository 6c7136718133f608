"""Experts learn apart: with the bits of learners of their own, and one without gradient stands still altogether."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.training import Trained
from torch import Tensor, nn

from reelign.batches import Clips, Loss
from reelign.models import gaussian
from reelign.protocols import VideoModel
from reelign.runtime import checkpoint
from reelign.runtime.learner import LearnerConfig
from reelign.weights import Reference, load_trainable, of_experts

TURNS = (("high",), ("high", "low"), ("low",), ("low", "high"), ("low",), ("low",), ("high",))
"""Which experts an update's samples are of."""
CONFIG = LearnerConfig(lr=0.03, warmup=4, weight_decay=0.1, max_grad_norm=0.7, ema=0.9, ema_warmup=True)


def _network(seed: int) -> nn.Module:
    network = gaussian.Offsets(gaussian.Config(bins=2), (3, 1, 2, 2))
    with torch.no_grad():
        network.shift += 0.1 * seed
    return network


def _experts() -> dict[str, nn.Module]:
    return {"high": _network(1), "low": _network(2)}


class Pull:
    """A loss for each expert in the batch, with too long a gradient; `alone` is which one "" stands for."""

    consumes = Clips
    needs: frozenset[str] = frozenset()

    def __init__(self, alone: str = "") -> None:
        self.alone = alone

    def losses(self, model: Any, batch: Any, seed: int, micro_batch: int) -> Iterator[Loss]:
        for name in batch:
            network = model.experts[name]
            goal = 1.0 + seed + len(name or self.alone)
            value = (network.offset - goal).square().sum() + (network.shift + goal).square().sum()
            yield Loss(value, 1 / len(batch), {"loss": value.detach()})


class Networks(VideoModel):
    """A model of which a learner reads no more than the networks."""

    def __init__(self, experts: dict[str, nn.Module]) -> None:
        self.experts = experts


def _learner(experts: dict[str, nn.Module]) -> Trained:
    return Trained(Networks(experts), CONFIG)


def _train(learner: Trained, first: int = 0) -> None:
    for step in range(first, len(TURNS)):
        learner.learn(Pull(), TURNS[step], step, "here")


def _alone(name: str) -> dict[str, Tensor]:
    """What a learner of one expert only holds after the updates that are its."""
    learner = _learner({"": _experts()[name]})
    for step, turn in enumerate(TURNS):
        if name in turn:
            learner.learn(Pull(name), ("",), step, "here")
    return learner.state()


def _same(found: dict[str, Tensor], name: str, alone: dict[str, Tensor]) -> bool:
    parts = (key.partition(f"{name}/") for key in found if f"{name}/" in key)
    own = {before + after: found[before + mark + after] for before, mark, after in parts}
    return own.keys() == alone.keys() and all(torch.equal(own[key], alone[key]) for key in own)


@pytest.mark.parametrize("name", ["high", "low"])
def test_two_experts_learn_as_two_learners_of_one_would(name: str) -> None:
    learner = _learner(_experts())
    _train(learner)
    assert _same(learner.state(), name, _alone(name))


def test_an_expert_without_gradient_stands_still_altogether() -> None:
    learner = _learner(_experts())
    learner.learn(Pull(), ("high", "low"), 0, "here")
    before = {key: value.clone() for key, value in learner.state().items()}
    rate = learner.optimizer.param_groups[0]["lr"]
    for step in range(1, 4):
        learner.learn(Pull(), ("low",), step, "here")
    moved = {key for key, value in learner.state().items() if not torch.equal(value, before[key])}
    assert moved == {key for key in before if "low/" in key}
    learner.learn(Pull(), ("high",), 4, "here")
    assert learner.optimizer.param_groups[0]["lr"] == 2 * rate
    assert learner.updates == 5


@pytest.mark.parametrize("saved_at", [1, 3, 5])
def test_they_go_on_bit_by_bit_from_a_saved_state(saved_at: int) -> None:
    whole, first, second = _learner(_experts()), _learner(_experts()), _learner(_experts())
    _train(whole)
    for step in range(saved_at):
        first.learn(Pull(), TURNS[step], step, "here")
    second.load({key: value.clone() for key, value in first.state().items()}, first.updates)
    _train(second, saved_at)
    found, expected = second.state(), whole.state()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def test_the_gradients_norm_is_that_of_all_experts() -> None:
    learner = _learner(_experts())
    reported = learner.learn(Pull(), ("high", "low"), 0, "here")["grad_norm"]
    fresh = _experts()
    for loss in Pull().losses(Networks(fresh), ("high", "low"), 0, 1):
        loss.value.backward()
    every = torch.cat([p.grad.flatten() for network in fresh.values() for p in network.parameters()])
    assert reported == pytest.approx(every.norm().item(), rel=1e-5)


def test_weights_are_called_by_their_expert_and_a_single_one_has_no_name() -> None:
    names = [f"{expert}/{name}" for expert in ("high", "low") for name in ("offset", "shift")]
    assert list(of_experts(_experts())) == names
    assert list(of_experts({"": _network(1)})) == ["offset", "shift"]
    several = (_experts(), {"": _network(1)}, {"low": _network(1)})
    assert len({checkpoint.fingerprint(of_experts(experts)) for experts in several}) == 3


def test_values_are_copied_into_the_expert_that_they_are_of() -> None:
    experts, others = _experts(), {"high": _network(5), "low": _network(6)}
    load_trainable(experts, of_experts(others))
    assert all(torch.equal(experts[name].shift, others[name].shift) for name in experts)


def test_a_role_keeps_the_weights_of_every_expert() -> None:
    experts, x, sigma = _experts(), torch.ones(1, 3, 1, 2, 2), torch.tensor([0.6])
    reference = Reference(experts)
    before = {name: reference.call(x, sigma, expert=name).detach() for name in experts}
    reference.start("reference")
    with torch.no_grad():
        for p in of_experts(experts).values():
            p += 1.0
    for name, expected in before.items():
        with reference.on("reference"):
            assert torch.equal(reference.call(x, sigma, expert=name), expected)
        assert not torch.equal(reference.call(x, sigma, expert=name), expected)
    assert set(reference.state()) == {f"reference/{name}" for name in of_experts(experts)}
    again = Reference(experts)
    again.load(reference.state(), ())
    with again.on("reference"):
        assert torch.equal(again.call(x, sigma, expert="low"), before["low"])
