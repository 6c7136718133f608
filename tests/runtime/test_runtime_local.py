"""The in-process runtime: rollouts, scores, references, and devices it does not have."""

import mmap
import platform
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from reelign import parts, rollouts, sampling
from reelign.batches import Prompts, Request, Scored
from reelign.errors import BadConfig
from reelign.panel import Weighted
from reelign.rollouts import Exploration
from reelign.runtime import malloc, plan
from reelign.runtime.learner import LearnerConfig
from reelign.runtime.local import Local, RuntimeConfig, device, resolve
from reelign.runtime.local_work import Gathered
from reelign.runtime.plan import PassesConfig
from reelign.runtime.work import StageSpec
from reelign.sampling import SamplerConfig
from reelign.stages import evaluate

LINEAR = "tests.parts.linear_reward:build"


PROMPTS = Prompts((Request("a", 4, slices={"k": "x"}), Request("b", 0), Request("c", 9)), 3)
EXPLORED = Exploration("flow", 0.7, (0, 1, 0), 2)
SAMPLER = SamplerConfig(steps=4)
REWARD = TypeAdapter(Weighted).validate_python({"name": LINEAR, "k": 2.0, "weight": 0.5})


def _spec(learnt: int = 32, method: str = "grpo", **passes: Any) -> StageSpec:
    learner, settings = LearnerConfig(micro_batch=learnt), PassesConfig(**passes)
    return StageSpec(parts.configure("method", method), learner, (REWARD,), settings)


def _rolled(model: Any, spec: StageSpec) -> Scored:
    assert spec.learner is not None
    with Local(model).stage(spec) as work:
        items = plan.rollout(PROMPTS, EXPLORED, 1, spec.passes.micro_batch or spec.learner.micro_batch)
        return work.rollout(items, SAMPLER, "here")


def test_a_rollout_is_scored_by_prompt_and_member(gaussian: Callable[..., Any]) -> None:
    model = gaussian(side=2)
    found = _rolled(model, _spec())
    x0 = found.trajectories.x0
    assert torch.allclose(found.rewards["linear"], 2 * x0.flatten(1).mean(dim=1).reshape(3, 3))
    assert found.weights == {"linear": 0.5}
    assert found.seen == {}
    assert found.seconds.keys() == {"rollout", "decode", "reward"}


def test_the_plan_of_an_iteration_keeps_groups_whole() -> None:
    items = plan.rollout(PROMPTS, EXPLORED, 5, 6)
    assert [(item.prompts.texts, item.exploration.first, item.seed) for item in items] == [
        (("a", "b"), (0, 1), 5),
        (("c",), (0,), 5),
    ]
    assert len(plan.rollout(PROMPTS, EXPLORED, 5, 1)) == 3  # at least one group


def test_pieces_end_where_the_size_changes() -> None:
    sizes = [None, None, (5, 16, 16), (5, 16, 16), None]
    asked = tuple(Request(str(i), i, size=size) for i, size in enumerate(sizes))
    assert [(cut.start, cut.stop) for cut in sampling.runs(asked, 10)] == [(0, 2), (2, 4), (4, 5)]
    assert [(cut.start, cut.stop) for cut in sampling.runs(asked[:2], 1)] == [(0, 1), (1, 2)]
    assert list(sampling.runs((), 3)) == []


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


def test_a_stage_starts_the_references_that_it_needs_and_drops_them_at_its_end(gaussian: Callable[..., Any]) -> None:
    model = gaussian(side=2)
    runtime = Local(model)
    for role in ("reference", "sampled"):
        model.reference.start(role)
    with runtime.stage(_spec(method="nft")):
        assert model.reference.roles == ("sampled",)
    assert model.reference.state() == {}
    assert runtime.work is None


def test_freed_memory_is_kept_where_the_c_library_can_be_told() -> None:
    assert malloc.keep_freed() == (platform.libc_ver()[0] == "glibc")
    assert malloc.keep_freed() == malloc.keep_freed()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_what_is_large_goes_back_when_it_is_freed() -> None:
    assert malloc.keep_freed()
    before, block = _resident(), torch.ones(4 * malloc.LARGE)
    keeps_a_heap_from_shrinking = torch.ones(1)
    assert _resident() - before > 2 * malloc.LARGE
    del block
    assert _resident() - before < 2 * malloc.LARGE
    del keeps_a_heap_from_shrinking


def _resident() -> int:
    """Bytes that the process has in main memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.parametrize(
    "passes", [{"retain": True}, {"overlap": True}, {"overlap": True, "retain": True}, {"micro_batch": 5}], ids=str
)
@pytest.mark.parametrize("micro_batch", [3, 4, 100])
def test_how_a_rollout_is_cut_changes_no_bit_of_it(
    gaussian: Callable[..., Any], passes: dict[str, Any], micro_batch: int
) -> None:
    model = gaussian(side=2)
    whole, cut = _rolled(model, _spec(100)), _rolled(model, _spec(micro_batch, **passes))
    assert cut.trajectories.prompts == PROMPTS
    for name in ("x0", "x", "x_next", "sigma", "log_prob", "mean", "std", "index"):
        assert torch.equal(getattr(whole.trajectories, name), getattr(cut.trajectories, name))
    assert torch.equal(whole.rewards["linear"], cut.rewards["linear"])
    live = [[len(t.mean) for t in step] for step in cut.trajectories.live]
    cuts = [c.stop - c.start for c in rollouts.cuts(cut.trajectories, micro_batch)]
    assert live == ([cuts, cuts] if passes.get("retain") else [])


def test_pieces_of_a_rollout_are_views_of_the_whole(gaussian: Callable[..., Any]) -> None:
    model, seed = gaussian(side=2), 1
    items = plan.rollout(PROMPTS, EXPLORED, seed, 3)
    gathered = Gathered(9)
    parts = [gathered.add(rollouts.rollout(model, i.prompts, SAMPLER, i.exploration, seed, 3)) for i in items]
    whole = gathered.whole()
    for name in ("x0", "x", "x_next", "mean", "log_prob"):
        places = {getattr(part, name).untyped_storage().data_ptr() for part in parts}
        assert places == {getattr(whole, name).untyped_storage().data_ptr()}
    assert whole.pieces == (3, 3, 3)


@pytest.mark.parametrize("stage", ["score", "evaluate"])
def test_videos_are_gone_before_the_next_are_made(
    gaussian: Callable[..., Any], stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Any]] = []
    plain = sampling.videos

    def watched(*args: Any) -> Any:
        assert all(ref() is None for ref in made)
        found = plain(*args)
        made.append(weakref.ref(found.frames))
        return found

    monkeypatch.setattr(sampling, "videos", watched)
    runtime = Local(gaussian(side=2))
    with runtime.stage(_spec(2)) as work:
        if stage == "score":
            work.score(PROMPTS.repeated, range(9), SAMPLER, "here")
        else:
            metrics = ({"name": "tests.parts.mean_level"},)
            (tmp_path / "prompts.txt").write_text("a\nb\nc\n")
            dataset = {"name": "prompt_file", "path": str(tmp_path / "prompts.txt")}
            config = evaluate.Config.model_validate(
                {
                    "dataset": dataset,
                    "metrics": metrics,
                    "members": 2,
                    "batch": 2,
                    "samplers": [SAMPLER.model_dump()],
                    "videos": 0,
                }
            )
            list(evaluate.run(work, evaluate.prepare(config), "base", tmp_path, "", frozenset()))
    assert len(made) >= 3
