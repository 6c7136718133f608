"""The learner: what an update changes, what stops it, and that it can be saved in the middle."""

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.training import Trained
from torch import Tensor
from torch.testing import assert_close

from reelign.batches import Clips, Loss, requests
from reelign.core import rng
from reelign.errors import RunStopped
from reelign.methods import sft
from reelign.runtime.learner import LearnerConfig

Make = Callable[..., Any]


class Plain:
    """A method whose loss a test writes itself, from the model's network."""

    consumes = Clips
    needs: frozenset[str] = frozenset()

    def __init__(self, *parts: Callable[[Any], Tensor]) -> None:
        self.parts = parts

    def explore(self, steps: int, prompts: Any, seed: int) -> Any:
        raise NotImplementedError

    def credit(self, trajectories: Any, rewards: Any, weights: Any) -> Any:
        raise NotImplementedError

    def losses(self, model: Any, batch: Any, seed: int, micro_batch: int) -> Iterator[Loss]:
        for part in self.parts:
            value = part(model.network)
            yield Loss(value, 1 / len(self.parts), {"loss": value.detach(), "max_loss": value.detach()})


def _clips(model: Any, n: int = 4) -> Clips:
    return Clips(rng.normals(range(n), model.geometry.latent), requests("abcdefgh"[:n]), torch.ones(n))


def _weights(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.network.named_parameters()}


def _same(model: Any, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(p, before[name]) for name, p in model.network.named_parameters())


def test_a_model_without_trainable_parameters_is_refused(gaussian: Make) -> None:
    model = gaussian()
    model.network.requires_grad_(False)
    with pytest.raises(RunStopped, match=r"no parameter of the model is trainable; check model.lora"):
        Trained(model, LearnerConfig())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_the_first_bad_tensor_and_changes_nothing(gaussian: Make, value: float) -> None:
    model = gaussian(side=2)
    learner, before = Trained(model, LearnerConfig(weight_decay=0.1)), _weights(model)
    batch = _clips(model)
    batch.x0[2, 0, 0, 1, 1] = value
    with pytest.raises(
        RunStopped, match=r"step 12 of stage sft: the loss is (nan|inf); .* is batch\.x0\. The weights were not changed"
    ):
        learner.learn(sft.build(sft.Config()), batch, 0, "step 12 of stage sft")
    assert _same(model, before)
    assert learner.updates == 0
    assert learner.state().keys() == {"weights/offset", "weights/shift"}


def test_a_weight_that_is_not_finite_is_named(gaussian: Make) -> None:
    model = gaussian()
    with torch.no_grad():
        model.network.shift[0] = math.nan
    with pytest.raises(
        RunStopped, match=r"^here: the loss is nan, as the model's weights hold NaN in 'shift'; give it"
    ):
        Trained(model, LearnerConfig()).learn(sft.build(sft.Config()), _clips(model), 0, "here")


def test_a_network_that_breaks_on_good_input_is_named(gaussian: Make) -> None:
    method = Plain(lambda net: net.offset.sum() / 0)
    with pytest.raises(RunStopped, match=r"not finite is the network's output\."):
        Trained(gaussian(), LearnerConfig()).learn(method, SimpleNamespace(), 0, "here")


def test_a_gradient_that_is_not_finite_names_its_weight_and_changes_nothing(gaussian: Make) -> None:
    model = gaussian()
    before = _weights(model)
    # The root's slope at 0 is infinite though its value is 0; the other weight's gradient is fine.
    method = Plain(lambda net: net.offset.sum() + net.shift.abs().sum().sqrt())
    with pytest.raises(
        RunStopped, match=r"step 3: the gradient of 'shift' is not finite; the weights were not changed"
    ):
        Trained(model, LearnerConfig()).learn(method, None, 0, "step 3")
    assert _same(model, before)


def test_a_frozen_weight_that_is_not_finite_is_named_as_the_model_folder_names_it(wan: Make) -> None:
    model = wan(lora={"rank": 2})
    with torch.no_grad():
        dict(model.network.named_parameters())["blocks.0.ffn.net.2.base_layer.weight"][1, 2] = math.inf
    learner = Trained(model, LearnerConfig())
    with pytest.raises(
        RunStopped, match=r"the model's weights hold infinity in 'blocks\.0\.ffn\.net\.2\.weight'; give"
    ):
        learner.learn(sft.build(sft.Config()), _clips(model), 0, "here")
    assert not learner.broken


@pytest.mark.parametrize("averages", [{}, {"ema": 0.5}])
def test_an_update_that_breaks_the_weights_is_caught_in_the_same_update(gaussian: Make, averages: Any) -> None:
    model = gaussian()
    learner = Trained(model, LearnerConfig(lr=10, **averages))
    largest = torch.finfo(torch.float32).max
    with torch.no_grad():
        model.network.shift[0, 0] = largest
    method = Plain(lambda net: -net.shift.clamp(max=1).sum() - net.shift.sum() / 1e38)
    learner.learn(method, None, 0, "step 0")
    assert not learner.broken  # the norm of all weights overflows, but no weight does
    learner.config = learner.config.model_copy(update={"lr": largest})
    with pytest.raises(
        RunStopped, match=r"^step 1: its update left infinity in 'shift' in the weights; they are not saved"
    ):
        learner.learn(method, None, 0, "step 1")
    assert learner.broken


def test_it_trains_where_autograd_was_left_off(gaussian: Make) -> None:
    model = gaussian()
    with torch.no_grad():
        found = Trained(model, LearnerConfig(lr=0.1)).learn(Plain(lambda net: net.offset.sum()), None, 0, "here")
    assert found["updated"] == 1
    assert model.network.offset.any()


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"lr": 1e39}, "lr"),
        ({"lr": 0.0}, "lr"),
        ({"betas": (1.0, 1.0)}, "betas"),
        ({"betas": (-5.0, 0.9)}, "betas"),
        ({"betas": (0.9, math.nan)}, "betas"),
        ({"max_grad_norm": 1e-30}, "max_grad_norm"),
        ({"max_grad_norm": 1e30}, "max_grad_norm"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"lr": 0.1, "weight_decay": 10.0}, r"weight_decay 10 at lr 0\.1 takes away all of a weight in one update"),
    ],
)
def test_settings_out_of_sense_are_refused(settings: dict[str, Any], where: str) -> None:
    with pytest.raises(ValueError, match=where):
        LearnerConfig(**settings)


def test_after_a_refused_update_the_next_one_is_as_if_nothing_had_been(gaussian: Make) -> None:
    model, fresh = gaussian(), gaussian()
    learner, other = (Trained(m, LearnerConfig(lr=0.1)) for m in (model, fresh))
    good = Plain(lambda net: (net.offset - 1).square().sum())
    with pytest.raises(RunStopped):
        learner.learn(Plain(lambda net: net.offset.sum() * math.nan), SimpleNamespace(), 0, "here")
    learner.learn(good, None, 0, "here")
    other.learn(good, None, 0, "here")
    assert _same(model, _weights(fresh))


def test_no_losses_means_no_step(gaussian: Make) -> None:
    model = gaussian()
    learner = Trained(model, LearnerConfig(lr=0.1, weight_decay=0.5))
    with torch.no_grad():
        model.network.offset += 1
    before = _weights(model)
    assert learner.learn(Plain(), None, 0, "here") == {"updated": 0.0}
    assert _same(model, before)


def test_the_sum_of_yielded_losses_is_the_objective(gaussian: Make) -> None:
    """The gradient norm is compared: Adam's first step would hide the size of the gradient."""
    parts = [lambda net: 0.3 * net.offset.sum(), lambda net: 0.2 * (net.shift - 1).square().sum()]
    apart = Trained(gaussian(), LearnerConfig()).learn(Plain(*parts), None, 0, "here")
    joint = Trained(gaussian(), LearnerConfig()).learn(
        Plain(lambda net: parts[0](net) + parts[1](net)), None, 0, "here"
    )
    assert apart["grad_norm"] == pytest.approx(joint["grad_norm"], rel=1e-6)


@pytest.mark.parametrize("micro_batch", [1, 3, 100])
def test_micro_batches_change_neither_metrics_nor_gradient(wan: Make, micro_batch: int) -> None:
    metrics = []
    for size in (8, micro_batch):
        model = wan()
        learner = Trained(model, LearnerConfig(micro_batch=size, lr=1e-4))
        metrics.append(learner.learn(sft.build(sft.Config()), _clips(model, 8), 0, "here"))
    assert metrics[0].keys() == metrics[1].keys()
    for name, value in metrics[0].items():
        assert metrics[1][name] == pytest.approx(value, rel=1e-4)


def test_metrics_are_means_by_share_and_maxima(gaussian: Make) -> None:
    found = Trained(gaussian(), LearnerConfig()).learn(
        Plain(lambda net: net.offset.sum() + 1, lambda net: net.shift.sum() + 3), None, 0, "here"
    )
    assert found["loss"] == 2
    assert found["max_loss"] == 3
    assert found["updated"] == 1


def test_gradients_are_cut_to_the_largest_norm_and_reported_uncut(gaussian: Make) -> None:
    model = gaussian()
    found = Trained(model, LearnerConfig(max_grad_norm=0.5)).learn(
        Plain(lambda net: 4 * net.offset.sum()), None, 0, "here"
    )
    assert found["grad_norm"] == pytest.approx(4 * math.sqrt(3), rel=1e-6)
    assert model.network.offset.grad.norm().item() == pytest.approx(0.5, rel=1e-5)


def test_warmup_raises_the_rate_linearly(gaussian: Make) -> None:
    learner = Trained(gaussian(), LearnerConfig(lr=0.4, warmup=4))
    rates = []
    for _ in range(6):
        learner.learn(Plain(lambda net: net.offset.sum()), None, 0, "here")
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_averaged_weights_follow_the_decay_and_are_what_a_stage_leaves(gaussian: Make) -> None:
    model = gaussian()
    learner = Trained(model, LearnerConfig(lr=0.1, ema=0.75))
    expected = torch.zeros_like(model.network.offset)
    for _ in range(5):
        learner.learn(Plain(lambda net: (net.offset - 1).square().sum()), None, 0, "here")
        expected = 0.75 * expected + 0.25 * model.network.offset.detach()
    assert_close(learner.average["offset"], expected)
    learner.settle()
    assert_close(model.network.offset.detach(), expected)


def test_a_warming_decay_follows_the_first_updates_and_ends_at_its_own(gaussian: Make) -> None:
    config = LearnerConfig(lr=0.1, ema=0.5, ema_warmup=True)
    rising = [2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5, 0.5]
    assert [config.decay(n) for n in range(1, 11)] == pytest.approx(rising)
    model = gaussian()
    learner = Trained(model, config)
    expected = torch.zeros_like(model.network.offset)
    for decay in rising:
        learner.learn(Plain(lambda net: (net.offset - 1).square().sum()), None, 0, "here")
        expected = decay * expected + (1 - decay) * model.network.offset.detach()
    assert_close(learner.average["offset"], expected)
    assert config.model_copy(update={"ema_warmup": False}).decay(1) == 0.5


def test_a_warm_up_of_no_averages_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ema_warmup is set, but ema is 0, so nothing is averaged; give ema, such as"):
        LearnerConfig(ema_warmup=True)


def test_without_a_decay_settling_changes_nothing(gaussian: Make) -> None:
    model = gaussian()
    learner = Trained(model, LearnerConfig(lr=0.1))
    learner.learn(Plain(lambda net: net.offset.sum()), None, 0, "here")
    before = _weights(model)
    learner.settle()
    assert _same(model, before)


@pytest.mark.parametrize("averages", [{"ema": 0.0}, {"ema": 0.9}, {"ema": 0.9, "ema_warmup": True}])
def test_a_learner_goes_on_bit_by_bit_from_its_saved_state(wan: Make, averages: dict[str, Any]) -> None:
    config = LearnerConfig(lr=1e-3, warmup=5, weight_decay=0.01, **averages)
    method = sft.build(sft.Config())

    def train(learner: Trained, steps: range) -> None:
        for step in steps:
            learner.learn(method, _clips(learner.model), step, "here")

    whole = Trained(wan(lora={"rank": 2}), config)
    train(whole, range(4))
    first = Trained(wan(lora={"rank": 2}), config)
    train(first, range(2))
    saved = {name: value.clone() for name, value in first.state().items()}
    second = Trained(wan(lora={"rank": 2}), config)
    second.load(saved, first.updates)
    train(second, range(2, 4))
    expected = whole.state()
    assert second.state().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in second.state().items())
