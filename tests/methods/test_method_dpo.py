"""DPO: its start, its margin and its fixed point on Gaussian data. Rules of design C5."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reelign.batches import Loss, Pairs, requests
from reelign.core import rng
from reelign.methods import dpo
from reelign.weights import trainable

Make = Callable[..., Any]
MEAN, VAR, LEVEL = 0.4, 0.8, 0.35
SPREAD = (1 - LEVEL) ** 2 * VAR + LEVEL**2


def _method(**settings: Any) -> dpo.Dpo:
    return dpo.build(dpo.Config.model_validate({"levels": {"law": "uniform", "low": LEVEL, "high": LEVEL}, **settings}))


def _pairs(model: Any, n: int, seed: int = 0) -> Pairs:
    draws = [
        MEAN + math.sqrt(VAR) * rng.normals([rng.seed_for(seed, s, i) for i in range(n)], model.geometry.latent)
        for s in "wl"
    ]
    return Pairs(draws[0], draws[1], requests(f"pair {i}" for i in range(n)))


def _losses(model: Any, method: dpo.Dpo, batch: Pairs, seed: int = 1, micro_batch: int = 1000) -> list[Loss]:
    return list(method.losses(model, batch, seed, micro_batch))


def _start(gaussian: Make, side: int = 1, shift: float = 0.0) -> Any:
    """The mean-shift family, `shift` away from its reference."""
    model = gaussian(mean=MEAN, var=VAR, side=side)
    model.network.offset.requires_grad_(False)
    model.reference.start()
    with torch.no_grad():
        model.network.shift += shift
    return model


def test_rule_40_at_the_reference_the_loss_is_ln_2_and_the_margin_zero(wan: Make) -> None:
    for settings in ({}, {"lora": {"rank": 2}}):
        model = wan(**settings)
        model.reference.start()
        (loss,) = _losses(model, dpo.build(dpo.Config()), _pairs(model, 3))
        assert loss.value.item() == pytest.approx(math.log(2), abs=1e-6)
        assert loss.metrics["margin"] == 0
        assert loss.metrics["winner_error"] == 0


def test_rule_40_the_margin_does_not_depend_on_the_shared_noise(gaussian: Make) -> None:
    model, batch = _start(gaussian, shift=0.6), None
    batch = _pairs(model, 5)
    method = _method(beta=2.0)
    found = [[loss.metrics["margin"] for loss in _losses(model, method, batch, seed, micro_batch=2)] for seed in (1, 2)]
    expected = 2.0 * 0.6 * VAR * LEVEL**2 / SPREAD**2 * (batch.chosen - batch.rejected).flatten(1).mean(dim=1)
    # Float32 differences of errors of size 1.
    assert_close(torch.stack(found[0]), expected, atol=1e-5, rtol=1e-4)
    assert_close(torch.stack(found[1]), expected, atol=1e-5, rtol=1e-4)


def test_rule_41_beta_does_not_depend_on_the_resolution(gaussian: Make) -> None:
    small, large = _start(gaussian, 1, 0.6), _start(gaussian, 4, 0.6)
    batch = _pairs(small, 5)
    tiled = Pairs(batch.chosen.expand(-1, -1, -1, 4, 4), batch.rejected.expand(-1, -1, -1, 4, 4), batch.requests)
    margins = [
        _losses(model, _method(beta=2.0), pairs)[0].metrics["margin"]
        for model, pairs in ((small, batch), (large, tiled))
    ]
    assert_close(margins[0], margins[1], atol=1e-5, rtol=1e-4)


def test_rule_42_winner_and_loser_are_reported_apart(gaussian: Make) -> None:
    model = _start(gaussian, shift=0.6)
    metrics = _losses(model, _method(beta=2.0), _pairs(model, 64))[0].metrics
    assert_close(-1.0 * (metrics["winner_error"] - metrics["loser_error"]), metrics["margin"], atol=1e-5, rtol=1e-4)
    assert {"loss", "accuracy"} <= metrics.keys()


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_at_one_level_training_ends_where_bradley_terry_pairs_say(gaussian: Make, beta: float) -> None:
    """Labels follow P(a beats b) = sigmoid(k mean(a - b)); then h = k / beta_s with beta_s = beta var s^2 / S^2."""
    k, n = 0.9, 3000
    model = _start(gaussian)
    free = _pairs(model, n)
    gap = (free.chosen - free.rejected).flatten(1).mean(dim=1)
    order = gap.argsort()
    chance = torch.sigmoid(k * gap[order]).double()
    # Systematic labels: of neighbouring pairs exactly the expected share is won, so that little chance is left.
    won = (chance.cumsum(0) + 0.5).floor().diff(prepend=torch.zeros(1)) > 0.5
    win = torch.empty(n, dtype=torch.bool)
    win[order] = won
    pick = win.reshape(-1, 1, 1, 1, 1)
    batch = Pairs(
        torch.where(pick, free.chosen, free.rejected), torch.where(pick, free.rejected, free.chosen), free.requests
    )
    search = torch.optim.LBFGS([model.network.shift], max_iter=20, line_search_fn="strong_wolfe")
    method = _method(beta=beta)

    def closure() -> Tensor:
        search.zero_grad()
        (loss,) = _losses(model, method, batch, micro_batch=2 * n)
        loss.value.backward()
        return loss.value.detach()

    search.step(closure)
    expected = k * SPREAD**2 / (beta * VAR * LEVEL**2)
    assert model.network.shift.mean().item() == pytest.approx(expected, rel=0.03)


def test_micro_batches_do_not_change_loss_or_gradient(wan: Make) -> None:
    model, method = wan(), dpo.build(dpo.Config(beta=50.0, anchor=0.3))
    model.reference.start()
    with torch.no_grad():
        for i, p in enumerate(trainable(model.network).values()):
            p += 0.01 * rng.normal(p.shape, seed=i)
    batch = _pairs(model, 5)
    results = []
    for micro_batch in (1000, 4, 1):
        model.network.zero_grad(set_to_none=True)
        losses = _losses(model, method, batch, micro_batch=micro_batch)
        for loss in losses:
            loss.value.backward()
        gradients = {n: p.grad.clone() for n, p in trainable(model.network).items() if p.grad is not None}
        results.append((sum(loss.value.item() for loss in losses), gradients))
    for total, gradient in results[1:]:
        assert total == pytest.approx(results[0][0], rel=1e-4)
        for name, value in results[0][1].items():
            # Beta magnifies float32 differences of errors.
            assert_close(gradient[name], value, atol=1e-4, rtol=1e-3)


def test_the_anchor_adds_the_winners_own_error(gaussian: Make) -> None:
    model = _start(gaussian, shift=0.6)
    batch = _pairs(model, 8)
    plain, anchored = (_losses(model, _method(beta=2.0, anchor=a), batch)[0] for a in (0.0, 0.5))
    gradient = torch.autograd.grad(anchored.value - plain.value, model.network.shift)[0]
    assert (anchored.value - plain.value).item() > 0
    assert gradient.abs().sum() > 0


def test_the_reference_stays_where_it_was(gaussian: Make) -> None:
    model = _start(gaussian, shift=0.6)
    batch = _pairs(model, 4)
    before = {n: p.clone() for n, p in model.reference.state().items()}
    for loss in _losses(model, _method(beta=2.0), batch):
        loss.value.backward()
    assert model.network.shift.grad.abs().sum() > 0
    assert all(torch.equal(before[n], p) for n, p in model.reference.state().items())
