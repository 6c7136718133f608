"""The in-process runtime: rollouts, scores, references, and devices it does not have."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from reelign.batches import Prompts
from reelign.errors import BadConfig
from reelign.panel import Panel, Weighted
from reelign.runtime.learner import LearnerConfig
from reelign.runtime.local import Local, RuntimeConfig, device, resolve
from reelign.sampling import Exploration, SamplerConfig

LINEAR = "tests.parts.linear_reward:build"


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


@pytest.mark.parametrize(
    "name",
    ["cuda:99", "mps", "xpu", "meta", "hpu", "xla", "mtia", "mkldnn", "gpu", "toaster", "", "CPU", "cpu:-1", " cpu"],
)
@pytest.mark.filterwarnings("ignore:'mkldnn' is no longer used:UserWarning")
def test_a_device_that_cannot_hold_a_tensor_here_is_refused(name: str) -> None:
    if name in ("mps", "xpu") and torch.accelerator.is_available():
        pytest.skip("it may be there")
    with pytest.raises(BadConfig, match=rf"^runtime\.device is '{name}', which cannot hold a tensor here; use auto or"):
        resolve(RuntimeConfig(device=name))


def test_a_long_name_of_a_device_is_shortened() -> None:
    with pytest.raises(BadConfig) as refused:
        resolve(RuntimeConfig(device="x" * 5000))
    assert len(str(refused.value)) < 200


def test_the_cpu_is_one_device_whatever_its_number() -> None:
    for name in ("cpu", "cpu:0", "cpu:3"):
        assert resolve(RuntimeConfig(device=name)) == torch.device("cpu")
    if not torch.cuda.is_available():
        assert resolve(RuntimeConfig()) == torch.device("cpu")


def test_resolving_a_device_changes_nothing_and_setting_up_sets_threads() -> None:
    before = torch.get_num_threads()
    resolve(RuntimeConfig(device="cpu", threads=before + 1))
    assert torch.get_num_threads() == before
    try:
        assert device(RuntimeConfig(device="cpu", threads=before + 1)) == torch.device("cpu")
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_stage_drops_the_references_that_it_does_not_need(gaussian: Callable[..., Any]) -> None:
    model = gaussian(side=2)
    runtime = Local(model)
    runtime.begin_stage(LearnerConfig(), frozenset({"reference", "sampled", "videos"}))
    assert model.reference_weights.roles == ("reference", "sampled")
    runtime.begin_stage(LearnerConfig(), frozenset({"sampled"}))
    assert model.reference_weights.roles == ("sampled",)
    runtime.end_stage()
    assert model.reference_weights.state() == {}
    assert (runtime.learner, runtime.memory, runtime.needs) == (None, None, frozenset())


def test_freed_memory_is_kept_where_the_c_library_can_be_told() -> None:
    import platform

    from reelign.runtime import malloc

    assert malloc.keep_freed() == (platform.libc_ver()[0] == "glibc")
    assert malloc.keep_freed() == malloc.keep_freed()


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
