"""Forward-units: what each call costs, and hand counts of whole iterations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from reelign import config as configs
from reelign import parts
from reelign.batches import requests
from reelign.runtime.local import Local
from reelign.runtime.meter import Meter
from reelign.stage import Context
from reelign.stages import online

Make = Callable[..., Any]


def _ask(model: Any, n: int, guidance: float = 1.0) -> torch.Tensor:
    x = torch.zeros(n, *model.geometry.latent)
    return model.velocity(x, torch.full((n,), 0.5), model.encode(requests(["a prompt"] * n)), guidance)


def test_a_call_costs_its_samples_and_three_times_as_much_with_a_gradient(gaussian: Make) -> None:
    model = gaussian()
    meter = Meter(model.network)
    with torch.no_grad():
        _ask(model, 5)
    assert meter.units == 5
    _ask(model, 2)
    assert meter.units == 5 + 6


def test_guidance_costs_both_of_its_branches(wan: Make) -> None:
    model = wan()
    meter = Meter(model.network)
    with torch.no_grad():
        _ask(model, 3, guidance=4.0)
    assert meter.units == 6
    _ask(model, 2, guidance=4.0)
    assert meter.units == 6 + 12


def test_activations_that_are_computed_twice_cost_four_and_are_counted_once(wan: Make) -> None:
    model = wan(checkpointing=True)
    meter = Meter(model.network)
    _ask(model, 3).sum().backward()
    with torch.no_grad():
        _ask(model, 3)
    assert meter.units == 12 + 3


def test_a_network_that_runs_again_within_a_backward_pass_is_charged_for_its_first_run() -> None:
    network = torch.nn.Linear(2, 2)
    meter = Meter(network)
    x = torch.ones(4, 2, requires_grad=True)
    checkpoint(network, x, use_reentrant=False).sum().backward()
    assert meter.units == 12


def test_a_kept_graph_costs_its_call_and_nothing_later(gaussian: Make) -> None:
    model = gaussian()
    meter = Meter(model.network)
    velocity = _ask(model, 4)
    velocity.sum().backward()
    assert meter.units == 12


def test_calls_of_the_reference_count_and_are_the_references(gaussian: Make) -> None:
    model = gaussian()
    meter = Meter(model.network)
    model.reference.start()
    with torch.no_grad():
        before = _ask(model, 3)
        model.network.offset.add_(1.0)
        with model.reference.on():
            assert_close(_ask(model, 3), before)
        assert_close(_ask(model, 3), before + 1.0)
    assert meter.units == 9
    with model.reference.on():
        _ask(model, 3)  # no weight of a reference has a gradient, so no backward pass can follow
    assert meter.units == 12


def test_an_adapter_that_is_switched_off_counts_as_a_forward_pass(wan: Make) -> None:
    model = wan(adapter={"name": "lora", "rank": 2})
    meter = Meter(model.network)
    model.reference.start()
    with torch.no_grad(), model.reference.on():
        _ask(model, 3)
    assert meter.units == 3


def test_text_and_pixels_cost_nothing(gaussian: Make) -> None:
    model = gaussian()
    meter = Meter(model.network)
    model.encode_video(model.decode(torch.ones(1, *model.geometry.latent), model.encode(requests("a"))))
    assert meter.units == 0


def _iterations(model: Any, root: Path, n: int, **changes: Any) -> list[int]:
    """Units of the first iterations of a stage: 3 prompts of 4 samples, 4 steps of which the first 2 are stochastic."""
    tree = {
        "name": "online",
        "steps": n,
        "prompts": 3,
        "group": 4,
        "dataset": "tests.parts.gaussian_data:build",
        "sampler": {"steps": 4, "shift": 3.0},
        "method": {"name": "grpo", "window": 2, "among": 2},
        "rewards": ["tests.parts.linear_reward:build"],
        "learner": {"micro_batch": 5},
        "show": {"every": 0},
    }
    config = configs.validate(online.Config, configs.override(tree, [f"{k}={v}" for k, v in changes.items()]))
    meter = Meter(model.network)
    stage = parts.build("stage", config, Context(0, root, "counted"))
    spent = []
    with Local(model).stage(stage.spec) as work:
        for _ in stage.run(work, 0):
            spent.append(meter.units - sum(spent))
    return spent


ROLLOUT = 12 * 4
REPLAY = 12 * 2
"""Samples of the 2 stochastic steps that the update looks at again."""
PLAIN: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, ROLLOUT + 3 * REPLAY),
    "reference": ({"method.kl": 0.1}, ROLLOUT + 3 * REPLAY + REPLAY),
    "two updates": ({"updates": 2}, ROLLOUT + 2 * 3 * REPLAY),
    "one stochastic step": ({"method.window": 1, "method.among": 1}, ROLLOUT + 3 * REPLAY // 2),
}
GUIDED = ({"sampler.guidance": 2.0}, 2 * (ROLLOUT + 3 * REPLAY))


@pytest.mark.parametrize(("changes", "expected"), PLAIN.values(), ids=PLAIN)
def test_an_iteration_costs_what_a_hand_count_says(
    gaussian: Make, tmp_path: Path, changes: dict[str, Any], expected: int
) -> None:
    assert _iterations(gaussian(), tmp_path, 2, **changes) == [expected, expected]


@pytest.mark.parametrize(("changes", "expected"), [*PLAIN.values(), GUIDED], ids=[*PLAIN, "guidance"])
def test_so_does_one_of_a_transformer(wan: Make, tmp_path: Path, changes: dict[str, Any], expected: int) -> None:
    assert _iterations(wan(), tmp_path, 2, **changes) == [expected, expected]


def test_an_adapter_and_activation_checkpointing_on_the_tiny_wan(wan: Make, tmp_path: Path) -> None:
    model = wan(adapter={"name": "lora", "rank": 2}, checkpointing=True)
    assert _iterations(model, tmp_path, 1, **{"method.kl": 0.1}) == [ROLLOUT + 4 * REPLAY + REPLAY]


def test_a_shared_start_costs_one_sample_a_prompt(gaussian: Make, tmp_path: Path) -> None:
    # The one stochastic step is drawn among the first two; before it a prompt's group is still a single sample.
    changes = {"method.window": 1, "method.among": 2}
    for spent in _iterations(gaussian(), tmp_path, 4, **changes):
        late = [n for n in range(4) if spent == 12 * 4 - 3 * n + 3 * 12]
        assert len(late) == 1  # so many of the three prompts saved three samples
