"""What a glance refuses the full checks would refuse too, in the same words; what is right it lets pass."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reelign import config as configs
from reelign import driver, glance
from reelign.bakeoff.spec import Spec
from reelign.errors import BadCheckpoint, BadConfig, BadData, UnknownPart, UserError
from reelign.parts import refuse_outside
from reelign.playground import demo

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SPECS = sorted((ROOT / "recipes" / "bakeoff").glob("*.yaml"))


def _tree() -> dict[str, Any]:
    return {
        "run": {"name": "toy"},
        "model": {"name": "wan"},
        "evaluate": {"dataset": {"name": "playground", "prompts": 4}, "metrics": ["diversity"]},
        "stages": [
            {
                "name": "offline",
                "steps": 5,
                "dataset": {"name": "playground", "prompts": 4},
                "method": {"name": "sft"},
                "gate": {"targets": ["x"]},
            },
            {
                "name": "online",
                "steps": 5,
                "dataset": {"name": "playground", "prompts": 4},
                "method": {"name": "grpo", "modules": ["bpgo", {"name": "vipo", "backbone": "gradients"}]},
                "rewards": [{"name": "degraded", "of": "playground_motion", "weight": 0.5}, "playground_clarity"],
            },
        ],
    }


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_every_recipe_of_the_repository_passes(path: Path) -> None:
    glance.recipe(configs.read(path))


@pytest.mark.parametrize("path", SPECS, ids=[path.stem for path in SPECS])
def test_every_bake_off_of_the_repository_passes(path: Path) -> None:
    glance.spec(configs.read(path))


def test_the_demo_and_a_dumped_recipe_pass(tmp_path: Path) -> None:
    glance.recipe(demo.recipe(tmp_path))
    glance.recipe(configs.dump(configs.validate(driver.Recipe, _tree())))
    glance.recipe(_tree())


@pytest.mark.parametrize(
    "assignment",
    [
        "stagez=1",
        "run.sede=1",
        "runtime.devize=cpu",
        "evaluate.samplers=[{shfit: 1}]",
        "evaluate.sampler.steps=8",
        "evaluate.metrics.0=diversty",
        "stages.0.stepz=1",
        "stages.0.gate.tragets=[a]",
        "stages.0.learner.lrr=1",
        "stages.0.name=offlin",
        "stages.0.dataset.name=clip_foldr",
        "stages.0.dataset.promts=1",
        "stages.1.method.clop=1",
        "stages.1.method.name=gpro",
        "stages.1.method.modules.0=bpog",
        "stages.1.method.modules.1.backbone=gradient",
        "stages.1.rewards.1=playground_claritt",
        "stages.1.rewards.0.of={name: degraded, off: x}",
        "model.adapter={name: lora, rnk: 3}",
        "model.lora={rank: 3}",
        "model.size={widht: 3}",
        "model.name=wann",
        "stages.1.rewards.0=reelign.models.wan",
        "stages.1.rewards.0=a..b",
    ],
)
def test_a_glance_refuses_in_the_words_of_the_full_check(assignment: str) -> None:
    tree = configs.override(_tree(), [assignment])
    with pytest.raises(UserError) as full:
        configs.validate(driver.Recipe, tree)
    with pytest.raises(type(full.value)) as quick:
        glance.recipe(tree)
    assert str(quick.value) == str(full.value)


def test_a_key_of_a_weighted_reward_is_told_with_all_that_are_known() -> None:
    tree = configs.override(_tree(), ["stages.1.rewards.0.wieght=1"])
    with pytest.raises(
        BadConfig, match=r"^stages\.1\.rewards\.0\.wieght: .* \(did you mean 'weight'\?\); known here: name, of, "
    ):
        glance.recipe(tree)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"stages": 3},
        {"stages": [3, None, {}]},
        {"stages": {"a": 1}},
        {"model": None},
        {"run": []},
        {"evaluate": None},
    ],
)
def test_what_has_another_form_is_left_to_the_full_check(tree: dict[str, Any]) -> None:
    glance.recipe(tree)
    glance.paths(tree)
    glance.run_folder(tree, resume=False)
    glance.run_folder(tree, resume=True)


def test_an_entry_of_a_bake_off_may_leave_a_parts_name_to_the_common_stage() -> None:
    tree = {"stage": {"method": "grpo"}, "entries": [{"label": "a", "stage": {"method": {"clip": 1}}}]}
    glance.spec(tree)
    tree["entries"][0]["stage"]["method"] = {"name": "grpo", "clop": 1}  # type: ignore[index]
    with pytest.raises(BadConfig, match=r"^entries\.0\.stage\.method\.clop: .* \(did you mean 'clip'\?\)"):
        glance.spec(tree)
    with pytest.raises(BadConfig, match=r"^budgt: there is no such key \(did you mean 'budget'\?\)"):
        glance.spec({"budgt": 1})
    assert "budget" in Spec.model_fields


JUDGE = "tests.parts.linear_reward"


@pytest.mark.parametrize("value", [JUDGE, f"{JUDGE}:build", {"name": "degraded", "of": JUDGE}])
def test_outside_parts_are_refused_where_they_stand(value: object) -> None:
    tree = _tree()
    tree["stages"][1]["rewards"][0] = value
    glance.recipe(tree)
    refuse_outside(True)
    try:
        with pytest.raises(
            UnknownPart,
            match=r"^stages\.1\.rewards\.0(\.of)?: the reward 'tests\.parts\.linear_reward.*code from outside",
        ):
            glance.recipe(tree)
        refuse_outside(False)
        tree["stages"][1]["rewards"][0] = "nobodys_lab.judge"
        with pytest.raises(
            UnknownPart, match=r"^stages\.1\.rewards\.0: no reward at .* there is no module 'nobodys_lab'; "
        ):
            glance.recipe(tree)
    finally:
        refuse_outside(False)


def test_a_model_that_is_no_pipeline_folder_is_told_in_the_models_own_words(tmp_path: Path) -> None:
    from reelign.models import wan

    tree = {"model": {"name": "wan", "weights": str(tmp_path)}}
    with pytest.raises(BadCheckpoint) as quick:
        glance.paths(tree)
    with pytest.raises(BadCheckpoint) as full:
        wan.check(wan.Config(weights=str(tmp_path)))
    assert str(quick.value) == str(full.value)
    (tmp_path / "model_index.json").write_text("{}")
    glance.paths(tree)
    glance.paths({"model": {"name": "wan"}})


def test_the_home_folder_may_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "clips").mkdir()
    (tmp_path / "runs" / "toy").mkdir(parents=True)
    (tmp_path / "runs" / "toy" / "config.json").write_text("{}")
    glance.paths(_with_data({"name": "clip_folder", "path": "~/clips"}))
    with pytest.raises(BadConfig, match=r"^'~/runs/toy' already holds a run"):
        glance.run_folder({"run": {"name": "toy", "root": "~/runs"}}, resume=False)


def _with_data(dataset: Mapping[str, object]) -> dict[str, Any]:
    return {"stages": [{"name": "offline", "dataset": dataset}]}


@pytest.mark.parametrize("path", ["nowhere", "a" * 5000, "~nobody-of-that-name/x", "nowhere/{data}"])
def test_data_that_is_not_there(path: str, tmp_path: Path) -> None:
    given = path if path.startswith("~") else os.path.join(tmp_path, path)
    with pytest.raises(BadData, match=r"^stages\.0\.dataset\.path: there is no file or folder at '") as refusal:
        glance.paths(_with_data({"name": "clip_folder", "path": given}))
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    "dataset",
    [
        {"name": "pair_list", "path": "{run}/pairs/pairs.jsonl"},
        {"name": "lab.data", "path": "nowhere"},
        {"name": "playground"},
        "playground",
        {"name": "clip_folder"},
        {"name": "clip_folder", "path": 3},
    ],
)
def test_data_that_may_come_or_is_judged_elsewhere(dataset: Any) -> None:
    glance.paths(_with_data(dataset))


def test_a_run_folder_is_started_once_and_resumed_after_that(tmp_path: Path) -> None:
    tree = {"run": {"name": "toy", "root": str(tmp_path)}}
    glance.run_folder(tree, resume=False)
    with pytest.raises(BadConfig, match=r"toy' holds no run to resume; start it without --resume\.$"):
        glance.run_folder(tree, resume=True)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "config.json").write_text("{}")
    glance.run_folder(tree, resume=True)
    with pytest.raises(BadConfig, match=r"toy' already holds a run; go on with --resume, or choose another name"):
        glance.run_folder(tree, resume=False)


def test_a_run_that_is_not_there_is_told(tmp_path: Path) -> None:
    glance.a_run(tmp_path)
    with pytest.raises(
        BadData, match=r"^there is no folder .*nowhere; give the path of a run, for example runs/NAME\.$"
    ):
        glance.a_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"run": {"name": ".."}}, r"^run\.name: a name is letters, digits .* \(given: '\.\.'\)\.$"),
        ({"run": {"name": "toy", "root": "a\0b"}}, r"^run\.root: holds the character U\+0000"),
        (
            {"run": {"name": "toy"}, "stages": ["collect", {"name": "offline", "label": "a/b"}]},
            r"^stages\.1\.label: a la",
        ),
    ],
)
def test_names_that_no_file_can_have_are_refused_at_a_glance(changes: dict, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        glance.recipe(changes)
