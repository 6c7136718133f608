"""SFT: the flow-matching loss, named noise, and where it converges."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.training import Trained
from torch import Tensor
from torch.testing import assert_close

from reelign.batches import Clips, requests
from reelign.core import flow, rng
from reelign.methods import sft
from reelign.runtime.learner import LearnerConfig
from reelign.weights import trainable

Make = Callable[..., Any]


def _clips(model: Any, n: int, seed: int = 0, mean: float = 0.0, var: float = 1.0) -> Clips:
    x0 = mean + math.sqrt(var) * rng.normals([rng.seed_for(seed, i) for i in range(n)], model.geometry.latent)
    return Clips(x0, requests(f"a red circle {i}" for i in range(n)), torch.ones(n))


def _gradient(model: Any, method: sft.Sft, batch: Clips, micro_batch: int) -> tuple[float, dict[str, Tensor]]:
    model.network.zero_grad(set_to_none=True)
    total = 0.0
    for loss in method.losses(model, batch, 7, micro_batch):
        loss.value.backward()
        total += loss.value.item()
    return total, {n: p.grad.clone() for n, p in trainable(model.network).items() if p.grad is not None}


def test_training_takes_a_perturbed_velocity_back_to_the_exact_one(gaussian: Make) -> None:
    model, method = gaussian(mean=0.7, var=0.5, side=2, bins=2), sft.build(sft.Config())
    with torch.no_grad():
        model.network.offset += torch.tensor([0.6, -0.4]).reshape(2, 1, 1, 1, 1)
        model.network.shift += 0.5
    learner = Trained(model, LearnerConfig(lr=0.05, max_grad_norm=100.0, ema=0.95))
    for step in range(120):
        learner.learn(method, _clips(model, 64, step, 0.7, 0.5), rng.seed_for(0, step), "here")
    learner.settle()
    x, sigma = rng.normals(range(64), model.geometry.latent), torch.linspace(0.05, 0.95, 64)
    exact = gaussian(mean=0.7, var=0.5, side=2, bins=2)
    with torch.no_grad():
        gap = model.velocity(x, sigma, model.encode(requests([""] * 64))) - exact.velocity(
            x, sigma, exact.encode(requests([""] * 64))
        )
    # The start was about 0.5 away everywhere; what is left is the noise of 64 samples a step, averaged.
    assert float(gap.abs().mean()) < 0.06


def test_at_the_exact_velocity_the_loss_is_the_irreducible_one(gaussian: Make) -> None:
    model, n = gaussian(mean=0.7, var=0.5), 4000
    config = sft.Config.model_validate({"levels": {"low": 0.4, "high": 0.4}})
    (loss,) = sft.build(config).losses(model, _clips(model, n, mean=0.7, var=0.5), 1, n)
    spread = 0.6**2 * 0.5 + 0.4**2
    assert loss.value.item() == pytest.approx(0.5 / spread, rel=0.03)  # Var(noise - x0 | x) = var / spread


def test_micro_batches_do_not_change_loss_or_gradient(wan: Make) -> None:
    model, method = wan(), sft.build(sft.Config())
    batch = _clips(model, 6)
    joint_loss, joint = _gradient(model, method, batch, 100)
    for micro_batch in (1, 4):
        loss, gradient = _gradient(model, method, batch, micro_batch)
        assert loss == pytest.approx(joint_loss, abs=1e-6)
        for name, value in joint.items():
            assert_close(gradient[name], value, atol=1e-6, rtol=1e-3)


def test_the_loss_is_the_written_formula(wan: Make) -> None:
    model, method = wan(), sft.build(sft.Config(caption_dropout=0.0))
    batch = _clips(model, 3)
    weighted = Clips(batch.x0, batch.requests, torch.tensor([0.5, 1.0, 1.5]))
    seen: list[tuple[Tensor, Tensor]] = []
    model.network.register_forward_pre_hook(lambda _, args: seen.append((args[0], args[1] / 1000)))
    found = sum(loss.value.item() for loss in method.losses(model, weighted, 7, 2))
    x, sigma = (torch.cat(column) for column in zip(*seen, strict=True))
    noise = (x - (1 - flow.expand_to(sigma, x)) * batch.x0) / flow.expand_to(sigma, x)
    with torch.no_grad():
        velocity = model.velocity(x, sigma, model.encode(batch.requests))
    errors = (velocity - (noise - batch.x0)).square().flatten(1).mean(dim=1)
    assert found == pytest.approx(
        (errors * weighted.weight).mean().item(), rel=1e-3
    )  # the noise is recovered in float32


def test_captions_are_dropped_by_name_and_at_the_asked_rate(gaussian: Make) -> None:
    model, method = gaussian(), sft.build(sft.Config(caption_dropout=0.25))
    seen: list[list[str]] = []
    encode = model.encode
    model.encode = lambda asked, geometry: (seen.append([r.text for r in asked]), encode(asked, geometry))[1]
    batch = _clips(model, 2000)
    for seed in (1, 1, 2):
        list(method.losses(model, batch, seed, 2000))
    assert seen[0] == seen[1] != seen[2]
    assert seen[0].count("") / 2000 == pytest.approx(0.25, abs=0.04)


def test_a_samples_noise_does_not_depend_on_the_batch_size(gaussian: Make) -> None:
    model, method = gaussian(side=2), sft.build(sft.Config())
    small = [loss.metrics["loss"] for loss in method.losses(model, _clips(model, 3), 4, 1)]
    large = [loss.metrics["loss"] for loss in method.losses(model, _clips(model, 5), 4, 1)]
    assert_close(torch.stack(large[:3]), torch.stack(small), atol=0, rtol=0)
