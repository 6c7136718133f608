"""Forward-units: what each call costs, and hand counts of whole iterations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.testing import assert_close

from reelign import config as configs
from reelign import parts
from reelign.bakeoff.count import Counted
from reelign.batches import requests
from reelign.protocols import VideoModel
from reelign.runtime.local import Local
from reelign.stage import Context
from reelign.stages import online

Make = Callable[..., Any]


def _ask(model: Counted, n: int, guidance: float = 1.0) -> torch.Tensor:
    x = torch.zeros(n, *model.geometry.latent)
    return model.velocity(x, torch.full((n,), 0.5), model.encode(requests(["a prompt"] * n)), guidance)


def test_a_call_costs_its_samples_twice_with_guidance_three_times_with_a_gradient(gaussian: Make) -> None:
    model = Counted(gaussian())
    with torch.no_grad():
        _ask(model, 5)
        assert model.units == 5
        _ask(model, 5, guidance=4.0)
        assert model.units == 15
    _ask(model, 2)
    assert model.units == 15 + 6
    _ask(model, 2, guidance=4.0)
    assert model.units == 15 + 6 + 12


def test_activations_that_are_computed_twice_cost_four(gaussian: Make) -> None:
    model = Counted(gaussian(), checkpointing=True)
    _ask(model, 3)
    with torch.no_grad():
        _ask(model, 3)
    assert model.units == 12 + 3


def test_a_kept_graph_costs_its_call_and_nothing_later(gaussian: Make) -> None:
    model = Counted(gaussian())
    velocity = _ask(model, 4)
    velocity.sum().backward()
    assert model.units == 12


def test_calls_of_the_reference_count_and_are_the_references(gaussian: Make) -> None:
    inner = gaussian()
    model = Counted(inner)
    model.reference.start()
    with torch.no_grad():
        before = _ask(model, 3)
        model.network.offset.add_(1.0)
        with model.reference.on():
            assert_close(_ask(model, 3), before)
        assert_close(_ask(model, 3), before + 1.0)
    assert model.units == 9
    with model.reference.on():
        _ask(model, 3)  # no weight of a reference has a gradient, so no backward pass can follow
    assert model.units == 12


def test_everything_else_is_the_models_own(gaussian: Make) -> None:
    inner = gaussian(side=2)
    model = Counted(inner)
    assert isinstance(model, VideoModel)
    assert model.network is inner.network
    assert model.geometry is inner.geometry
    assert model.config is inner.config
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = model.nothing_of_the_kind
    frames = model.decode(torch.ones(1, *model.geometry.latent), model.encode(requests("a"))).frames
    assert_close(frames, torch.ones(1, 1, 3, 2, 2))
    assert model.decode_s > 0
    assert model.units == 0


def _iterations(model: Counted, root: Path, n: int, **changes: Any) -> list[int]:
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
    }
    config = configs.validate(online.Config, configs.override(tree, [f"{k}={v}" for k, v in changes.items()]))
    stage = parts.build("stage", config, Context(0, root, "counted"))
    spent = []
    with Local(cast(VideoModel, model)).stage(stage.spec) as work:
        for _ in stage.run(work, 0):
            spent.append(model.units - sum(spent))
    return spent


ROLLOUT = 12 * 4
REPLAY = 12 * 2
"""Samples of the 2 stochastic steps that the update looks at again."""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ROLLOUT + 3 * REPLAY),
        ({"method.kl": 0.1}, ROLLOUT + 3 * REPLAY + REPLAY),
        ({"sampler.guidance": 2.0}, 2 * (ROLLOUT + 3 * REPLAY)),
        ({"updates": 2}, ROLLOUT + 2 * 3 * REPLAY),
        ({"method.window": 1, "method.among": 1}, ROLLOUT + 3 * REPLAY // 2),
    ],
    ids=["plain", "reference", "guidance", "two updates", "one stochastic step"],
)
@pytest.mark.parametrize("family", ["gaussian", "wan"])
def test_an_iteration_costs_what_a_hand_count_says(
    request: pytest.FixtureRequest, tmp_path: Path, family: str, changes: dict[str, Any], expected: int
) -> None:
    model = Counted(request.getfixturevalue(family)())
    assert _iterations(model, tmp_path, 2, **changes) == [expected, expected]


def test_an_adapter_and_activation_checkpointing_on_the_tiny_wan(wan: Make, tmp_path: Path) -> None:
    model = Counted(wan(lora={"rank": 2}, checkpointing=True), checkpointing=True)
    assert _iterations(model, tmp_path, 1, **{"method.kl": 0.1}) == [ROLLOUT + 4 * REPLAY + REPLAY]


def test_a_shared_start_costs_one_sample_a_prompt(gaussian: Make, tmp_path: Path) -> None:
    # The one stochastic step is drawn among the first two; before it a prompt's group is still a single sample.
    model = Counted(gaussian())
    changes = {"method.window": 1, "method.among": 2}
    for spent in _iterations(model, tmp_path, 4, **changes):
        late = [n for n in range(4) if spent == 12 * 4 - 3 * n + 3 * 12]
        assert len(late) == 1  # so many of the three prompts saved three samples
