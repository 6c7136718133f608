"""What is known to fail is refused before any compute, and what should be known is said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.driver.toys import tree_of

from reelign import config as configs
from reelign import driver, video
from reelign.errors import BadConfig, BadData, UserError

RUN = {"name": "toy"}
SFT = {"name": "offline", "steps": 1, "method": "sft"}
DPO = {"name": "offline", "steps": 1, "method": "dpo"}
GRPO = {
    "name": "online",
    "steps": 1,
    "prompts": 1,
    "group": 2,
    "sampler": {"steps": 2},
    "rewards": ["playground_motion"],
}
PROMPT = "A large red circle moves left slowly on a teal background."


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., driver.Findings]:
    """Checks stages on the packaged generator, with clips that fit, pairs that are a frame short, and prompts."""
    monkeypatch.chdir(tmp_path)
    for folder, frames in (("clips", 9), ("pairs", 8)):
        for name in ("a", "b"):
            video.write(tmp_path / folder / f"{name}.mp4", torch.rand(frames, 3, 32, 32), 8, lossless=True)
            (tmp_path / folder / f"{name}.txt").write_text(PROMPT)
    (tmp_path / "pairs" / "pairs.jsonl").write_text(f'{{"prompt": "{PROMPT}", "chosen": "a.mp4", "rejected": "b.mp4"}}')
    (tmp_path / "p.txt").write_text(f"{PROMPT}\n")

    def checked(*stages: dict[str, Any], **more: Any) -> driver.Findings:
        tree = {"run": RUN, "model": "wan", "stages": list(stages), **more}
        return driver.check(configs.validate(driver.Recipe, tree))

    return checked


CLIPS = {"name": "clip_folder", "path": "clips"}
PROMPTS = {"name": "prompt_file", "path": "p.txt"}


def test_a_recipe_that_can_run_says_what_it_reads(check: Callable[..., driver.Findings]) -> None:
    found = check({**SFT, "dataset": CLIPS}, {**GRPO, "dataset": PROMPTS, "method": {"name": "grpo", "window": 1}})
    assert found.told == ("stages.0.dataset: 2 clips read.", "stages.1.dataset: 1 prompt read.")
    assert found.cautions == found.left_out == ()


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        (
            [{**SFT, "dataset": CLIPS}, {**DPO, "dataset": {"name": "pair_list", "path": "pairs/pairs.jsonl"}}],
            r"^stages\.1\.dataset: 2 of 2 clips of ",
        ),
        (
            [
                {
                    **GRPO,
                    "dataset": PROMPTS,
                    "method": {
                        "name": "grpo",
                        "window": 1,
                        "modules": [{"name": "ddrl", "dataset": {"name": "clip_folder", "path": "pairs"}}],
                    },
                }
            ],
            r"^stages\.0\.method\.modules\.0\.dataset: 2 of 2 clips of pairs do not have",
        ),
        (
            [{**DPO, "dataset": {"name": "pair_list", "path": "{run}/pairs/pairs.jsonl"}}],
            r"stages\.0\.dataset: '{run}/pairs/pairs\.jsonl' will not be there, since no stage before it",
        ),
        (
            [
                {"name": "collect", "prompts": 1, "dataset": PROMPTS, "rewards": ["playground_motion"], "path": "mine"},
                {**DPO, "dataset": {"name": "pair_list", "path": "{run}/pairs/pairs.jsonl"}},
            ],
            r"since the stages before it write {run}/mine/pairs\.jsonl; name one of these",
        ),
        (
            [
                {"name": "collect", "prompts": 1, "dataset": PROMPTS, "rewards": ["playground_motion"]},
                {**SFT, "dataset": {"name": "pair_list", "path": "{run}/pairs/pairs.jsonl"}},
            ],
            "holds pairs, but the stage needs clips",
        ),
        (
            [
                {"name": "collect", "prompts": 1, "dataset": PROMPTS, "rewards": ["playground_motion"]},
                {
                    **GRPO,
                    "dataset": PROMPTS,
                    "method": {
                        "name": "grpo",
                        "window": 1,
                        "modules": [{"name": "ddrl", "dataset": {"name": "clip_folder", "path": "{run}/pairs/clips"}}],
                    },
                },
            ],
            r"^stages\.1\.method\.modules\.0\.dataset: {run} stands for the run folder in a stage's own dataset only",
        ),
        (
            [
                {
                    **GRPO,
                    "dataset": PROMPTS,
                    "method": {
                        "name": "grpo",
                        "window": 1,
                        "modules": [{"name": "ddrl", "dataset": {"name": "clip_folder", "path": "absent"}}],
                    },
                }
            ],
            r"^stages\.0\.method\.modules\.0\.dataset: there is no folder at absent; check the path",
        ),
    ],
)
def test_data_of_every_stage_is_checked(
    check: Callable[..., driver.Findings], stages: list[dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        check(*stages)


@pytest.mark.parametrize("root", ["clips", "clips/deep"])
def test_a_run_does_not_lie_in_what_it_reads(check: Callable[..., driver.Findings], root: str) -> None:
    with pytest.raises(
        BadConfig, match=r"^run\.root: the run would lie in 'clips', which stages\.0\.dataset reads; choose"
    ):
        check({**SFT, "dataset": CLIPS}, run={"name": "toy", "root": root})


def test_a_reward_of_other_videos_is_refused(check: Callable[..., driver.Findings]) -> None:
    stage = {**GRPO, "dataset": PROMPTS, "method": {"name": "grpo", "window": 1}}
    with pytest.raises(
        BadConfig, match=r"'playground_motion' reads clips of 9 x 32 x 32 only, but the model makes 5 x 32 x 32"
    ):
        check(stage, model={"name": "wan", "size": {"frames": 5, "height": 32, "width": 32, "fps": 8}})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"rewards": [{"name": "degraded", "of": "playground_motion"}]},
            r"^stages\.0\.dataset: the reward 'degraded' cannot judge by a prompt: the reward 'playground_motion' ",
        ),
        (
            {"rewards": ["playground_attributes"]},
            r"^stages\.0\.dataset: the reward 'playground_attributes' cannot judge",
        ),
    ],
)
def test_prompts_that_a_reward_cannot_read_are_refused(
    check: Callable[..., driver.Findings], tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "p.txt").write_text("a dog barks\n")
    with pytest.raises(BadData, match=sentence):
        check({**GRPO, "dataset": PROMPTS, "method": {"name": "grpo", "window": 1}, **changes})


def test_prompts_that_a_metric_cannot_read_are_refused(check: Callable[..., driver.Findings], tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a dog barks\n")
    with pytest.raises(BadData, match=r"^evaluate\.dataset: the metric 'playground' cannot judge by a prompt: "):
        check({**SFT, "dataset": CLIPS}, evaluate={"dataset": PROMPTS, "metrics": ["playground"]})


def test_prompts_that_train_and_judge_are_counted_and_those_that_are_cut(
    check: Callable[..., driver.Findings], tmp_path: Path
) -> None:
    (tmp_path / "judge.txt").write_text(f"{PROMPT.upper()}\na blue square\n")
    evaluation = {"dataset": {"name": "prompt_file", "path": "judge.txt"}, "metrics": ["diversity"]}
    found = check({**SFT, "dataset": CLIPS}, evaluate=evaluation, model={"name": "wan", "text_length": 6})
    assert found.cautions[0].startswith(
        "evaluate.dataset: 1 of 2 texts are longer than the 6 tokens that the model sees"
    )
    assert found.cautions[-1].startswith(
        "1 of 2 held-out prompts are also in stages.0.dataset: what is measured on them"
    )


def test_the_run_folder_is_no_place_of_held_out_prompts(check: Callable[..., driver.Findings]) -> None:
    evaluation = {"dataset": {"name": "prompt_file", "path": "{run}/p.txt"}, "metrics": ["diversity"]}
    with pytest.raises(
        BadConfig, match=r"^evaluate\.dataset: {run} stands for the run folder in a stage's own dataset"
    ):
        check({**SFT, "dataset": CLIPS}, evaluate=evaluation)


def test_prompts_are_one_whatever_their_unicode_form(check: Callable[..., driver.Findings], tmp_path: Path) -> None:
    (tmp_path / "clips" / "a.txt").write_text("Ein B\u00e4r", encoding="utf-8")
    (tmp_path / "judge.txt").write_text("ein Ba\u0308r\n", encoding="utf-8")
    evaluation = {"dataset": {"name": "prompt_file", "path": "judge.txt"}, "metrics": ["diversity"]}
    found = check({**SFT, "dataset": CLIPS}, evaluate=evaluation)
    assert found.cautions[-1].startswith("1 of 1 held-out prompts are also in stages.0.dataset")


def test_clips_that_are_left_out_are_named(check: Callable[..., driver.Findings], tmp_path: Path) -> None:
    (tmp_path / "clips" / "b.txt").unlink()
    with pytest.raises(
        BadData, match=r"^stages\.0\.dataset: 1 of 2 clips of clips have no .* or set `quarantine: 0\.5` in"
    ):
        check({**SFT, "dataset": CLIPS})
    found = check({**SFT, "dataset": {**CLIPS, "quarantine": 0.5}})
    assert found.left_out == ("stages.0.dataset: b.mp4 has no caption",)
    assert "b.mp4 has no caption" in found.cautions[0]


def test_what_is_said_of_data_comes_in_the_recipes_order(check: Callable[..., driver.Findings], tmp_path: Path) -> None:
    (tmp_path / "clips" / "b.txt").unlink()
    found = check(
        {**SFT, "dataset": {**CLIPS, "quarantine": 0.5}},
        {**GRPO, "dataset": PROMPTS, "method": {"name": "grpo", "window": 1}},
    )
    assert [sentence.partition(":")[0] for sentence in found.told] == ["stages.0.dataset", "stages.1.dataset"]
    assert found.cautions == found.told[:1]


def test_a_part_of_the_model_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "wan" / "tokenizer").mkdir(parents=True)
    tree = tree_of(tmp_path)
    recipe = configs.validate(driver.Recipe, {**tree, "run": {"name": "tokenizer", "root": str(tmp_path / "wan")}})
    from reelign.driver import places

    pipeline = recipe.model.model_copy(update={"weights": str(tmp_path / "wan")})
    with pytest.raises(BadConfig, match=r"tokenizer', which model.weights reads"):
        places.refuse_inside(recipe.model_copy(update={"model": pipeline}))
    places.refuse_inside(recipe)


def test_a_judge_on_a_device_that_is_not_there_is_refused(check: Callable[..., driver.Findings]) -> None:
    """Its stage may begin hours after the start."""
    reward = {"name": "tests.parts.network_reward", "device": "cuda:99"}
    stages = {**SFT, "dataset": CLIPS}, {**GRPO, "dataset": PROMPTS, "method": "flow_grpo", "rewards": [reward]}
    with pytest.raises(
        BadConfig, match=r"^device of the reward 'tests\.parts\.network_reward' is 'cuda:99', which cannot"
    ):
        check(*stages)
    check(stages[0], {**stages[1], "rewards": [{**reward, "device": "cpu"}]})
