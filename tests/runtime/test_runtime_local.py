"""The in-process runtime: rewards it refuses to train on, and devices it does not have."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from reelign.batches import Prompts, Videos
from reelign.errors import BadConfig, RunStopped
from reelign.runtime.learner import LearnerConfig
from reelign.runtime.local import Local, Panel, RuntimeConfig, Weighted, WeightedReward, device
from reelign.sampling import Exploration, SamplerConfig

LINEAR = "tests.parts.linear_reward:build"


class Fixed:
    version = "1"
    range = (0.0, 1.0)

    def __init__(self, *values: float, name: str = "clarity") -> None:
        self.values, self.name, self.names = torch.tensor(values), name, (name,)

    def __call__(self, videos: Videos, prompts: Sequence[str]) -> dict[str, Tensor]:
        return {self.name: self.values}


VIDEOS = Videos(torch.zeros(2, 1, 3, 4, 4), 8.0)
TEXTS = ("a red circle", "a blue square")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_stops_with_its_name_and_prompt(value: float) -> None:
    with pytest.raises(
        RunStopped,
        match=r"the reward 'clarity' gave (nan|inf|-inf) for 'a blue square', which is not finite.*mend the reward",
    ):
        Panel((Fixed(0.5, value),), (1.0,)).score(VIDEOS, TEXTS)


@pytest.mark.parametrize("value", [1.5, -0.1])
def test_a_reward_off_its_scale_stops(value: float) -> None:
    with pytest.raises(
        RunStopped, match=rf"gave {value:g} for 'a red circle', outside its scale 0 to 1. Nothing was trained"
    ):
        Panel((Fixed(value, 0.5),), (1.0,)).score(VIDEOS, TEXTS)


def test_two_rewards_of_one_name_are_refused() -> None:
    with pytest.raises(BadConfig, match=r"two rewards give the score 'clarity'"):
        Panel((Fixed(0.1, 0.2), Fixed(0.3, 0.4)), (1.0, 1.0)).score(VIDEOS, TEXTS)


def test_scores_come_with_their_weights() -> None:
    scores, weights, ranges = Panel((Fixed(0.1, 0.2), Fixed(0.3, 0.4, name="motion")), (1.0, 0.5)).score(VIDEOS, TEXTS)
    assert scores["motion"].tolist() == pytest.approx([0.3, 0.4])
    assert weights == {"clarity": 1.0, "motion": 0.5}
    assert ranges == {"clarity": Fixed(0).range, "motion": Fixed(0).range}


@pytest.mark.parametrize(
    ("given", "weight"),
    [(LINEAR, 1.0), ({"name": LINEAR, "k": 2.0}, 1.0), ({"name": LINEAR, "k": 2.0, "weight": 0.5}, 0.5)],
)
def test_a_reward_is_written_with_its_weight_beside_its_settings(given: Any, weight: float) -> None:
    found: WeightedReward = TypeAdapter(Weighted).validate_python(given)
    assert found.weight == weight
    assert found.reward.name == LINEAR
    again = TypeAdapter(Weighted).validate_python(found.model_dump(mode="json"))
    assert again == found


def test_a_rollout_is_scored_by_prompt_and_member(gaussian: Callable[..., Any]) -> None:
    model = gaussian(side=2)
    runtime = Local(model)
    runtime.begin_stage(LearnerConfig(), frozenset())
    found = runtime.rollout(
        Prompts(("a", "b"), (0, 1), 3), SamplerConfig(steps=4), Exploration("flow", 0.7, (0, 1), 2), 1
    )
    panel = Panel.build([TypeAdapter(Weighted).validate_python({"name": LINEAR, "k": 2.0, "weight": 0.5})])
    scored = runtime.score(found, panel)
    assert torch.allclose(scored.rewards["linear"], 2 * found.x0.flatten(1).mean(dim=1).reshape(2, 3))
    assert scored.weights == {"linear": 0.5}
    assert scored.videos is None
    assert torch.equal(scored.rescore(model.decode(found.x0))["linear"], scored.rewards["linear"].flatten())


def test_devices_that_are_not_there() -> None:
    if not torch.cuda.is_available():
        assert device(RuntimeConfig()).type == "cpu"
        with pytest.raises(RunStopped, match=r"runtime.device is 'cuda:0', but torch sees no CUDA device"):
            device(RuntimeConfig(device="cuda:0"))
    with pytest.raises(BadConfig, match=r"torch has no device 'toaster'; use auto, cpu or cuda"):
        device(RuntimeConfig(device="toaster"))


def test_freed_memory_is_kept_where_the_c_library_can_be_told() -> None:
    import platform

    from reelign import memory

    assert memory.keep_freed() == (platform.libc_ver()[0] == "glibc")
    assert memory.keep_freed() == memory.keep_freed()


@pytest.mark.parametrize("retain", [False, True])
def test_waves_give_the_rollout_and_the_scores_of_one(gaussian: Callable[..., Any], retain: bool) -> None:
    model = gaussian(side=2)
    runtime = Local(model)
    runtime.begin_stage(LearnerConfig(micro_batch=3), frozenset({"videos"}))
    panel = Panel.build([TypeAdapter(Weighted).validate_python({"name": LINEAR})])
    prompts = Prompts(("a", "b", "c"), (4, 0, 9), 3, ({"k": "x"}, {"k": "y"}, {"k": "z"}))
    asked = prompts, SamplerConfig(steps=4), Exploration("flow", 0.7, (0, 1, 0), 2), 1, panel
    one, three = (runtime.sample_and_score(*asked, waves=waves, retain=retain) for waves in (1, 3))
    assert three.trajectories.prompts == prompts
    for name in ("x0", "x", "x_next", "sigma", "log_prob", "mean", "std", "index"):
        assert torch.equal(getattr(one.trajectories, name), getattr(three.trajectories, name))
    assert torch.equal(one.rewards["linear"], three.rewards["linear"])
    assert one.videos is not None
    assert three.videos is not None
    assert torch.equal(one.videos.frames, three.videos.frames)
    assert [[t.mean.shape for t in step] for step in one.trajectories.live] == [
        [t.mean.shape for t in step] for step in three.trajectories.live
    ]
