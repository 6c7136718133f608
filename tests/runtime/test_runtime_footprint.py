"""What a stage is said to hold is what its learner, its references and its rollout hold."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from reelign import parts, rollouts
from reelign.batches import Prompts, requests
from reelign.models import wan as family
from reelign.outline import Outline, passes
from reelign.runtime import footprint
from reelign.runtime.footprint import Burden
from reelign.runtime.learner import Learner, LearnerConfig
from reelign.weights import trainable

PAIRS = {"name": "pair_list", "path": "nowhere.jsonl"}


@pytest.mark.parametrize("adapter", [None, {"name": "lora", "rank": 4}])
def test_a_learner_holds_what_is_said(wan: Callable[..., Any], tiny_wan21: Any, adapter: Any) -> None:
    model = wan(adapter=adapter)
    with torch.no_grad():
        for name, p in model.network.named_parameters():
            if "lora_B" in name:
                p.add_(0.1)  # else its reference would be the network without it, for nothing
    model.reference.start("reference")
    learner = Learner(trainable(model.network), LearnerConfig(ema=0.9))
    for p in learner.weights.values():
        p.grad = torch.zeros_like(p)
    learner.optimizer.step()
    state = learner.state()
    held = {kind: sum(t.nbytes for n, t in state.items() if n.startswith(kind)) for kind in ("weights", "average")}
    moments = sum(t.nbytes for name, t in state.items() if name.startswith("optimizer/exp_avg"))
    copies = sum(t.nbytes for t in model.reference.state().values())
    told = family.outline(model.config, torch.device("cpu"))
    found = footprint.kept(told, LearnerConfig(ema=0.9), Burden(1, 1, 1, roles=1))
    assert (found["moments"], found["averages"], found["frozen copies"]) == (moments, held["average"], copies)
    assert footprint.model(told)["adapter" if adapter else "network"] == held["weights"]


def test_what_a_stage_does_not_ask_for_is_not_there() -> None:
    small = Outline(nn.Sequential(nn.Linear(8, 4), nn.Tanh()).to("meta"), lambda n: ((n, 8),), {}, 16)
    assert footprint.kept(small, LearnerConfig(), Burden(0, 1, 1)).keys() == {"moments", "latents"}
    waiting, most = passes(small, 2)
    assert footprint.working(small, Burden(1, 1, 2)) == {"pass": most}
    assert footprint.working(small, Burden(1, 1, 2, graphs=4)) == {"pass": most, "graphs": 3 * waiting}
    assert waiting > 0


def _online(**more: Any) -> Any:
    tree = {"name": "online", "steps": 1, "prompts": 3, "group": 2, "dataset": "playground", "method": "grpo"}
    return parts.configure("stage", {**tree, "rewards": ["playground_motion"], "sampler": {"steps": 8}, **more})


@pytest.mark.parametrize("method", ["grpo", "flow_grpo", {"name": "grpo", "window": 1}, "nft"])
def test_a_rollout_holds_what_is_said(gaussian: Callable[..., Any], method: Any) -> None:
    stage, model = _online(method=method), gaussian(side=2)
    told = stage.burden
    built = parts.build("method", stage.method)
    prompts = Prompts(requests("abc"), 2)
    found = rollouts.rollout(model, prompts, stage.sampler, built.explore(8, prompts, 0, 0), 0)
    kept = sum(t.nbytes for t in (found.x0, found.x, found.x_next, found.mean))
    assert told.latents * found.x0[0].nbytes == kept
    assert told.texts == 4  # and the empty one


def test_rows_and_graphs_follow_the_micro_batch_the_guidance_and_kept_graphs() -> None:
    assert _online().burden.rows == 6
    assert _online(learner={"micro_batch": 4}).burden.rows == 4
    assert _online(sampler={"steps": 8, "guidance": 3.0}).burden.rows == 12
    kept = _online(learner={"micro_batch": 4}, passes={"retain": True}, method={"name": "grpo", "window": 2})
    assert kept.burden.graphs == 4  # two steps in two cuts
    assert _online(method={"name": "grpo", "kl": 0.1}).burden.roles == 1


def test_pairs_share_a_forward_pass() -> None:
    tree = {"name": "offline", "steps": 1, "batch": 5, "dataset": PAIRS, "method": "dpo", "learner": {"micro_batch": 4}}
    assert parts.configure("stage", tree).burden == Burden(6, 15, 4, roles=1)
    clips = {**tree, "method": "sft", "dataset": "playground"}
    assert parts.configure("stage", clips).burden == Burden(6, 10, 4)
