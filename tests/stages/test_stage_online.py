"""The online stage: ways to compute less or side by side give the same run, and what cannot be is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from reelign import parts
from reelign.runtime.local import Local
from reelign.stage import Context
from reelign.stages import online
from reelign.weights import trainable

Make = Callable[..., Any]
STAGE = {
    "name": "online",
    "steps": 3,
    "prompts": 4,
    "group": 3,
    "dataset": "tests.parts.gaussian_data",
    "sampler": {"steps": 6, "shift": 3.0},
    "method": {"name": "grpo", "among": 4, "kl": 0.1, "modules": [{"name": "bpgo", "share": 0.0}]},
    "rewards": [{"name": "tests.parts.linear_reward:build", "limit": 3.0}],
    "learner": {"lr": 0.05, "micro_batch": 3},
}


def _run(model: Any, folder: Path, **settings: Any) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    config = online.Config.model_validate({**STAGE, **settings})
    stage = parts.build("stage", config, Context(3, folder, "grpo"))
    with Local(model).stage(stage.spec) as work:
        rows = [{k: v for k, v in r.metrics.items() if not k.endswith("wall_s")} for r in stage.run(work, 0)]
    return rows, {n: p.detach().clone() for n, p in trainable(model.network).items()}


@pytest.mark.parametrize(
    "passes", [{"overlap": True}, {"retain": True}, {"overlap": True, "retain": True}, {"micro_batch": 100}], ids=str
)
def test_how_forward_passes_are_cut_changes_no_bit_of_a_run(
    gaussian: Make, tmp_path: Path, passes: dict[str, Any]
) -> None:
    rows, weights = _run(gaussian(side=2, bins=4), tmp_path)
    again, same = _run(gaussian(side=2, bins=4), tmp_path, passes=passes)
    assert rows == again
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert rows[-1]["online/max_abs_log_ratio"] == 0


@pytest.mark.parametrize("overlap", [False, True])
def test_every_step_says_where_its_time_went(gaussian: Make, tmp_path: Path, overlap: bool) -> None:
    config = online.Config.model_validate({**STAGE, "passes": {"overlap": overlap}})
    stage = parts.build("stage", config, Context(3, tmp_path, "grpo"))
    with Local(gaussian(side=2)).stage(stage.spec) as work:
        metrics = next(iter(stage.run(work, 0))).metrics
    assert {f"{what}/wall_s" for what in ("rollout", "decode", "reward", "credit", "update")} <= metrics.keys()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"passes": {"retain": True}, "updates": 2}, "retain keeps a graph for one update, but updates is 2"),
        ({"passes": {"retain": True}, "method": "nft"}, "'nft' rolls out with older weights"),
        ({"passes": {"retain": True, "merge": True}}, "with passes.retain there are none"),
        ({"passes": {"retain": True, "micro_batch": 4}}, "passes.micro_batch is 4 and learner.micro_batch 3"),
        ({"method": {"name": "crd"}, "learner": {"micro_batch": 2}}, "compares the 3 members of a group"),
        ({"method": {"name": "grpo", "modules": ["antithetic"]}}, "the stage's group is 3; make it even"),
        (
            {"method": {"name": "grpo", "modules": ["kl", {"name": "gardo", "main": "linear"}]}},
            "'kl' and 'gardo' both decide 'reference'",
        ),
        ({"method": {"name": "grpo", "modules": ["combine", "combine"]}}, "'combine' is given twice"),
        ({"method": {"name": "nft", "modules": ["vipo"]}}, "has no recorded steps"),
        ({"method": {"name": "grpo", "modules": ["bpgo"]}}, "'linear' is declared from -3 to 3"),
        ({"method": "sft"}, "give it a stage 'offline'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_when_the_recipe_is_read(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        online.Config.model_validate({**STAGE, **settings})
