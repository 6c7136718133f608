"""The online stage: ways to compute less or side by side give the same run, and what cannot be is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from reelign import parts, video
from reelign.core import rng
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


def test_samples_are_kept_at_a_cadence_with_their_rewards_and_move_no_bit(gaussian: Make, tmp_path: Path) -> None:
    shown = {"every": 2, "prompts": 3, "scale": 1}
    config = online.Config.model_validate({**STAGE, "show": shown})
    stage = parts.build("stage", config, Context(3, tmp_path, "grpo"))
    model = gaussian(side=2, bins=4)
    with Local(model).stage(stage.spec) as work:
        reports = list(stage.run(work, 0))
    assert [len(report.samples) for report in reports] == [3, 0, 3]
    first = reports[0].samples[0]
    assert first.video == f"samples/grpo/step-000000-{first.prompt_id}-0.mp4"
    frames = video.read(tmp_path / first.video)[0]
    assert frames.shape == (1, 3, 2, 2)
    prompts = stage.dataset.prompts(4, 3, rng.integer(1 << 20, seed=rng.seed_for(3, "prompts")))
    assert [sample.prompt for sample in reports[0].samples] == list(prompts.texts[:3])
    assert first.rewards.keys() == {"linear"}
    _, plain = _run(gaussian(side=2, bins=4), tmp_path, show={"every": 0})
    assert all(torch.equal(plain[name], p) for name, p in trainable(model.network).items())


@pytest.mark.parametrize("passes", [{}, {"overlap": True}])
def test_what_is_shown_are_the_first_prompts_whatever_the_pieces(gaussian: Make, passes: dict[str, Any]) -> None:
    config = online.Config.model_validate({**STAGE, "passes": passes, "show": {"prompts": 3}})
    stage = parts.build("stage", config, Context(3, Path("nowhere"), "grpo"))
    with Local(gaussian(side=2)).stage(stage.spec) as work:
        prompts = stage.dataset.prompts(4, 3, 0)
        scored = work.rollout(stage._plan(work, prompts, 0), config.sampler, "here", show=3)
    assert [(shown.request, shown.member) for shown in scored.shown] == [(r, 0) for r in prompts.requests[:3]]
    assert [shown.rewards["linear"] for shown in scored.shown] == scored.rewards["linear"][:3, 0].tolist()
