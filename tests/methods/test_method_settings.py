"""Whatever number a method, module, sampler or learner is given: it is refused, or the stage ends as it should."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ValidationError

from reelign import parts
from reelign.forward_process import LevelConfig
from reelign.runtime.learner import LearnerConfig
from reelign.runtime.local import Local
from reelign.sampling import SamplerConfig
from reelign.stage import Context
from reelign.weights import trainable

Make = Callable[..., Any]
Path_ = tuple[str, ...]
EXTREMES = (1e-300, 1e-40, 1e38, 1e300)
DATA = "tests.parts.gaussian_data"
OFFLINE = {"name": "offline", "steps": 1, "batch": 2, "dataset": DATA, "learner": {"lr": 0.01}}
ONLINE = {
    "name": "online", "steps": 1, "prompts": 2, "group": 2, "dataset": DATA, "sampler": {"steps": 4, "shift": 3.0},
    "method": "grpo", "rewards": [{"name": "tests.parts.linear_reward:build", "limit": 0.5, "k": 0.1}],
    "learner": {"lr": 0.01, "micro_batch": 4},
}  # fmt: skip
MODULES = {
    "bpgo": {},
    "combine": {"form": "min_norm"},
    "kl": {},
    "self_paced": {"order": ["linear", "linear"]},
    "ddrl": {"dataset": DATA},
}


def _floats(schema: type[BaseModel], path: Path_ = ()) -> Iterator[Path_]:
    for name, field in schema.model_fields.items():
        if field.annotation is LevelConfig:
            yield from _floats(LevelConfig, (*path, name))
        elif "float" in str(field.annotation) and "tuple" not in str(field.annotation):
            yield (*path, name)


def _with(tree: dict[str, Any], path: Path_, value: float) -> dict[str, Any]:
    key, *rest = path
    return {**tree, key: _with(tree.get(key, {}), tuple(rest), value) if rest else value}


def _ends_or_is_refused(model: Any, tree: dict[str, Any], folder: Path) -> None:
    try:
        config = parts.configure("stage", tree)
    except (ValidationError, parts.NestedErrors):
        return
    stage = parts.build("stage", config, Context(0, folder, "x"))
    with Local(model).stage(stage.spec) as work:
        list(stage.run(work, 0))
    assert all(bool(p.isfinite().all()) for p in trainable(model.network).values()), tree


@pytest.mark.parametrize("name", parts.available("method"))
def test_of_a_method(gaussian: Make, tmp_path: Path, name: str) -> None:
    stage = OFFLINE if name in ("sft", "dpo") else ONLINE
    for path in _floats(parts.find("method", name).Config):
        for value in EXTREMES:
            _ends_or_is_refused(
                gaussian(side=2, var=0.05), {**stage, "method": _with({"name": name}, path, value)}, tmp_path
            )


@pytest.mark.parametrize("name", MODULES)
def test_of_a_module(gaussian: Make, tmp_path: Path, name: str) -> None:
    for path in _floats(parts.find("module", name).Config):
        for value in EXTREMES:
            module = _with({"name": name, **MODULES[name]}, path, value)
            _ends_or_is_refused(
                gaussian(side=2, var=0.05), {**ONLINE, "method": {"name": "grpo", "modules": [module]}}, tmp_path
            )


@pytest.mark.parametrize(("key", "schema"), [("sampler", SamplerConfig), ("learner", LearnerConfig)])
def test_of_a_sampler_or_learner(gaussian: Make, tmp_path: Path, key: str, schema: type[BaseModel]) -> None:
    for path in _floats(schema):
        for value in EXTREMES:
            _ends_or_is_refused(gaussian(side=2, var=0.05), _with(ONLINE, (key, *path), value), tmp_path)


@pytest.mark.parametrize("shift", [0.01, 100.0])
@pytest.mark.parametrize("steps", [2, 1000])
def test_levels_of_every_shift_that_is_taken_fall(shift: float, steps: int) -> None:
    from reelign.core import schedule

    config = SamplerConfig(steps=steps, shift=shift)
    assert bool((schedule.sigmas(config.steps, config.shift).diff() < 0).all())


def test_levels_upside_down_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"low is 0\.9 and high is 0\.1, but low must not be above high"):
        LevelConfig(low=0.9, high=0.1)
    assert LevelConfig(low=0.4, high=0.4).low == 0.4


def test_a_blur_too_narrow_to_blur_is_left_out() -> None:
    from reelign.core import allocation

    maps = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = allocation.to_latent(maps, (3, 4, 4), 0.0)
    for smooth in (1e-300, 1e-40, 0.05, 0.051):
        assert torch.equal(allocation.to_latent(maps, (3, 4, 4), smooth), plain)
