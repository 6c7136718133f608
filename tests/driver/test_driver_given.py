"""Videos that begin from a given frame, and prompts of two sizes, through a whole run; the family is from outside."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.driver.toys import rows_of
from tests.parts import framed_model, sized_data

from reelign import config as configs
from reelign import driver, parts, sampling, video
from reelign.batches import Request
from reelign.errors import BadData

MODEL = {"name": "tests.parts.framed_model"}
WIDE = (3, 4, 6)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Clips with captions, pairs of them, and prompts of two sizes that begin from their first frames."""
    root = tmp_path / "data"
    root.mkdir()
    for index, width in enumerate((4, 4, 4, 6, 6, 6)):
        name = f"{index}.mp4"
        video.write(root / "wide" / name if width == 6 else root / name, torch.rand(3, 3, 4, width), 8.0, lossless=True)
    for index in range(3):
        (root / f"{index}.txt").write_text(f"clip {index}")
    rows = [{"prompt": f"clip {i}", "first_frame": f"{i}.mp4"} for i in range(3)]
    rows += [{"prompt": f"clip {i}", "first_frame": f"wide/{i}.mp4", "size": list(WIDE)} for i in range(3, 6)]
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair = {"prompt": "clip 0", "chosen": "0.mp4", "rejected": "1.mp4"}
    (root / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    return root


def _recipe(root: Path, data: Path, **changes: Any) -> driver.Recipe:
    prompts = {"name": "prompt_file", "path": str(data / "prompts.jsonl")}
    clips = {"name": "clip_folder", "path": str(data), "quarantine": 1.0}
    pairs = {"name": "pair_list", "path": str(data / "pairs.jsonl")}
    sampler, learner = {"steps": 4, "shift": 1.0}, {"lr": 0.01, "micro_batch": 4}
    online = {"name": "online", "steps": 4, "prompts": 2, "group": 3, "sampler": sampler, "dataset": prompts}
    tree = {
        "run": {"name": "framed", "root": str(root)},
        "model": MODEL,
        "stages": [
            {"name": "offline", "steps": 2, "batch": 2, "method": "sft", "dataset": clips, "learner": learner},
            {**online, "method": {"name": "grpo", "among": 3}, "rewards": ["steady_motion"], "learner": learner},
            {"name": "offline", "steps": 2, "batch": 1, "method": "dpo", "dataset": pairs, "learner": learner},
        ],
        "evaluate": {
            "dataset": prompts,
            "members": 2,
            "scale": 1,
            "samplers": [sampler],
            "metrics": ["moving", "diversity"],
        },
        **changes,
    }
    return configs.validate(driver.Recipe, tree)


def _seeing(root: Path, data: Path) -> driver.Recipe:
    """Stages and an evaluation whose judges look at what each video was given."""
    reward = "tests.parts.opening:Reward"
    drawn = {"dataset": {"name": "prompt_file", "path": str(data / "prompts.jsonl")}}
    sampled = {**drawn, "sampler": {"steps": 4}}
    online = {"name": "online", "steps": 4, "prompts": 2, "group": 3, "rewards": [reward, "steady_motion"], **sampled}
    worse = {"name": "degraded", "of": reward, "noise": 0.0}
    stages = [
        {**online, "method": {"name": "grpo", "among": 3}},
        {"name": "collect", "prompts": 4, "per_step": 2, "members": 2, "rewards": [worse], **sampled},
    ]
    evaluate = {
        **drawn,
        "samplers": [{"steps": 4}],
        "members": 2,
        "scale": 1,
        "metrics": ["tests.parts.opening:Metric", "diversity"],
    }
    return _recipe(root, data, stages=stages, evaluate=evaluate)


def test_all_three_stages_train_videos_that_begin_from_a_given_frame(tmp_path: Path, data: Path) -> None:
    folder = driver.run(_recipe(tmp_path, data))
    rows = rows_of(folder / "metrics.jsonl")
    assert {row["stage"] for row in rows} == {"sft", "grpo", "dpo"}
    online = [row for row in rows if row["stage"] == "grpo"]
    assert all(row["online/max_abs_log_ratio"] == 0 for row in online)
    assert sum(row["online/updated"] for row in online) > 0
    judged = json.loads((folder / "evaluations" / "dpo.json").read_text())
    assert len(judged["clips"]) == 12
    shown = [video.read(folder / clip["video"])[0].shape for clip in judged["clips"] if clip["video"]]
    assert {tuple(shape) for shape in shown} == {(3, 3, 4, 4), (3, 3, 4, 6)}


def test_a_reward_and_a_metric_see_the_frame_that_each_video_was_given(tmp_path: Path, data: Path) -> None:
    folder = driver.run(_seeing(tmp_path, data))
    rows = rows_of(folder / "metrics.jsonl")
    assert [row["online/reward/opening"] for row in rows if row["stage"] == "grpo"] == [1] * 4
    assert [row["collect/utility"] for row in rows if row["stage"] == "collect"] == [1] * 2
    for label in ("base", "grpo"):
        clips = json.loads((folder / "evaluations" / f"{label}.json").read_text())["clips"]
        assert [clip["measures"]["begins"] for clip in clips] == [1] * 12


def test_a_prompt_without_what_a_judge_looks_for_is_refused_before_any_compute(tmp_path: Path, data: Path) -> None:
    (data / "prompts.jsonl").write_text('{"prompt": "clip 0", "first_frame": "0.mp4"}\n{"prompt": "bare"}\n')
    sentence = (
        r"^evaluate\.dataset: the metric 'tests\.parts\.opening:Metric' cannot judge by a prompt: 'bare' gives no "
        r"first_frame; add one\.$"
    )
    with pytest.raises(BadData, match=sentence):
        driver.check(_seeing(tmp_path, data))


def test_what_is_given_never_flows_and_comes_back_as_it_was(data: Path) -> None:
    model = parts.build("model", parts.configure("model", MODEL), torch.device("cpu"))
    given = data / "wide" / "4.mp4"
    made = sampling.videos(
        model, [Request("clip 4", given={"first_frame": given}, size=WIDE)], [1], sampling.SamplerConfig(steps=4), 1
    )
    first = video.read(given)[0][0]
    assert torch.equal(made.frames[0, 0], first)
    assert made.frames.shape == (1, 3, 3, 4, 6)
    clips = parts.build(
        "dataset", parts.configure("dataset", {"name": "clip_folder", "path": str(data), "quarantine": 1.0})
    )
    drawn = clips.clips(2, 0, model)
    assert drawn.x0.shape == (2, 3, 2, 4, 4)
    frames = [video.read(request.given["first_frame"])[0] for request in drawn.requests]
    assert torch.equal(drawn.x0, torch.stack([clip[1:].transpose(0, 1) for clip in frames]))


def test_a_frame_that_a_model_does_not_take_is_refused_before_any_compute(tmp_path: Path, data: Path) -> None:
    with pytest.raises(
        BadData, match=r"^evaluate\.dataset: the prompt 'clip 0' gives a first_frame, but the model makes"
    ):
        driver.check(_recipe(tmp_path, data, model={"name": "gaussian", "side": 4}))


def test_a_draw_is_of_one_size_and_an_epoch_shows_all_prompts_of_both(data: Path) -> None:
    dataset = parts.build(
        "dataset", parts.configure("dataset", {"name": "prompt_file", "path": str(data / "prompts.jsonl")})
    )
    draws = [dataset.prompts(1, 2, number) for number in range(12)]
    assert all(len({request.size for request in drawn.requests}) == 1 for drawn in draws)
    assert sorted(drawn.texts[0] for drawn in draws[:6]) == sorted(drawn.texts[0] for drawn in draws[6:])
    assert len({drawn.texts[0] for drawn in draws[:6]}) == 6
    assert [drawn.requests[0].size for drawn in draws[:6]] not in ([None] * 3 + [WIDE] * 3, [WIDE] * 3 + [None] * 3)
    with pytest.raises(BadData, match="has 3 prompts, but 4 different ones are drawn at once"):
        dataset.prompts(4, 2, 0)


def test_a_data_set_from_outside_trains_on_clips_of_two_sizes(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = {size: data / f"{size[2]}.mp4" for size in sized_data.SIZES}
    for (_, height, width), path in frames.items():
        video.write(path, torch.rand(1, 3, height, width), 8.0, lossless=True)
    seen: list[tuple[int, ...]] = []
    encode = framed_model.Framed.encode

    def noting(self: Any, requests: Any, geometry: Any = None) -> Any:
        sizes = [request.size for request in requests]
        fitting = [replace(r, given={"first_frame": frames[size]}) for r, size in zip(requests, sizes, strict=True)]
        seen.append(geometry.latent)
        return encode(self, fitting, geometry)

    monkeypatch.setattr(framed_model.Framed, "encode", noting)
    config = {"name": "tests.parts.sized_data", "first_frame": str(data / "0.mp4")}
    stage = {"name": "offline", "steps": 4, "batch": 3, "method": "sft", "dataset": config, "learner": {"lr": 0.01}}
    folder = driver.run(_recipe(tmp_path, data, stages=[stage], evaluate=None))
    assert set(seen) == {(3, 2, 4, 4), (3, 2, 4, 8)}
    assert [row["offline/updated"] for row in rows_of(folder / "metrics.jsonl")] == [1] * 4
