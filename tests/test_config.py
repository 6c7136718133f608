"""Recipes: precedence, overrides, and one sentence for everything that does not fit."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from reelign import config as configs
from reelign import driver
from reelign.cli import demo
from reelign.errors import BadConfig, UnknownPart

ROOT = Path(__file__).parents[1]
LINEAR = "tests.parts.linear_reward:build"
DATA = "tests.parts.gaussian_data:build"


def _tree() -> dict[str, Any]:
    return {
        "run": {"name": "toy"},
        "model": {"name": "gaussian"},
        "evaluate": {"dataset": DATA, "metrics": ["tests.parts.mean_level:build"]},
        "stages": [
            {"name": "offline", "steps": 5, "dataset": DATA, "method": {"name": "sft"}, "gate": {"targets": ["level"]}},
            {
                "name": "online",
                "steps": 5,
                "dataset": DATA,
                "method": "grpo",
                "rewards": [{"name": LINEAR, "weight": 0.5}, LINEAR],
            },
        ],
    }


def _resolve(*assignments: str) -> driver.Recipe:
    return configs.validate(driver.Recipe, configs.override(_tree(), assignments))


def test_what_a_recipe_does_not_say_is_the_default_in_the_code() -> None:
    from reelign.methods.grpo import Config as Grpo

    found = _resolve()
    assert found.stages[1].method == Grpo(name="grpo")
    assert found.run.save_every == 25
    assert found.runtime.device == "auto"


def test_overrides_win_over_the_recipe_and_the_recipe_over_defaults() -> None:
    assert _resolve().stages[0].steps == 5
    found = _resolve(
        "stages.0.steps=7", "stages.1.method.clip=2e-4", "stages.1.rewards.0.weight=2", "run.seed=4", "evaluate=null"
    )
    assert (found.stages[0].steps, found.stages[1].method.clip, found.stages[1].rewards[0].weight) == (7, 2e-4, 2.0)
    assert (found.run.seed, found.evaluate) == (4, None)
    assert _resolve("run.seed=1", "run.seed=2").run.seed == 2


def test_a_setting_of_a_part_given_by_its_bare_name_can_be_overridden() -> None:
    found = configs.override(_tree(), ["stages.1.method.clip=1", "stages.1.rewards.1.k=2", "evaluate.dataset.size=4"])
    assert found["stages"][1]["method"] == {"name": "grpo", "clip": 1}
    assert found["stages"][1]["rewards"][1] == {"name": LINEAR, "k": 2}
    assert found["evaluate"]["dataset"] == {"name": DATA, "size": 4}


def test_overriding_leaves_the_given_tree_alone() -> None:
    tree = _tree()
    configs.override(tree, ["stages.0.method.name=dpo", "stages.0.learner.lr=1"])
    assert tree == _tree()


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("stages.0.steps", r"--set takes key=value, as in stages\.1\.method\.clip=2e-4; given: 'stages\.0\.steps'"),
        ("=3", r"--set takes key=value"),
        ("stages.5.steps=3", r"'stages\.5' must be a number from 0 to 1"),
        ("stages.last.steps=3", r"'stages\.last' must be a number from 0 to 1"),
        ("stages.0.steps.more=3", r"'stages\.0\.steps' is a plain value and has no 'more' in it"),
        ("stages.0.steps=[1", r"--set stages\.0\.steps: '\[1' is not valid YAML"),
    ],
)
def test_an_override_that_leads_nowhere(assignment: str, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        configs.override(_tree(), [assignment])


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        (
            "stagez=1",
            r"^stagez: there is no such key\. Did you mean 'stages'\? Known here: run, model, stages, eval",
        ),
        (
            "run.sede=1",
            r"^run\.sede: there is no such key\. Did you mean 'seed'\? Known here: name, seed, root, save_every\.$",
        ),
        ("evaluate.datset=x", r"^evaluate\.datset: there is no such key\. Did you mean 'dataset'\?"),
        (
            "evaluate.sampler.shfit=1",
            r"^evaluate\.sampler\.shfit: .* Did you mean 'shift'\? Known here: steps, shift, guidance, boundary\.$",
        ),
        ("stages.1.grop=1", r"^stages\.1\.grop: there is no such key\. Did you mean 'group'\?"),
        ("stages.1.method.clop=1", r"^stages\.1\.method\.clop: there is no such key\. Did you mean 'clip'\?"),
        (
            "stages.0.method.levels.meen=1",
            r"^stages\.0\.method\.levels\.meen: .* Did you mean 'mean'\? Known here: law, mean, std,",
        ),
        (
            "stages.0.gate.tragets=[a]",
            r"^stages\.0\.gate\.tragets: .* Did you mean 'targets'\? Known here: targets, guards, min_slice\.$",
        ),
        (
            "stages.1.rewards.0.kk=1",
            r"^stages\.1\.rewards\.0\.kk: there is no such key\. Did you mean 'k'\? Known here: name, k, limit\.$",
        ),
        ("model.sied=1", r"^model\.sied: there is no such key\. Did you mean 'side'\?"),
    ],
)
def test_an_unknown_key_is_named_by_its_full_path_with_the_nearest_known_one(assignment: str, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        _resolve(assignment)


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("run.seed=soon", r"^run\.seed: input should be a valid integer.* \(given: 'soon'\)\.$"),
        ("run.name=a/b", r"^run\.name: a name is letters, .* \(given: 'a/b'\)\.$"),
        ("run.name=2026-11-20", r"^run\.name: input should be a valid string \(given: datetime\.date"),
        ("stages=[]", r"^stages: .*at least 1 item"),
        ("stages=5", r"^stages: input should be a valid tuple \(given: 5\)\.$"),
        ("stages.0.steps=0", r"^stages\.0\.steps: input should be greater than or equal to 1 \(given: 0\)\.$"),
        ("stages.1.method.kind=warp", r"^stages\.1\.method\.kind: input should be 'flow', .* \(given: 'warp'\)\.$"),
        ("stages.0.learner.lr=fast", r"^stages\.0\.learner\.lr: .* \(given: 'fast'\)\.$"),
        ("runtime.name=ray", r"^runtime\.name: input should be 'local' \(given: 'ray'\)\.$"),
        ("stages.1.rewards.0.weight=-1", r"^stages\.1\.rewards\.0\.weight: input should be greater than 0"),
        ("model={side: 2}", r"^a model needs a name, as in \{name: gaussian\}; given: \{'side': 2\}\.$"),
        ("stages.0.method=7", r"^a method needs a name"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_named_by_its_full_path(assignment: str, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        _resolve(assignment)


def test_a_missing_key_is_named() -> None:
    tree = _tree()
    del tree["stages"][0]["dataset"]
    with pytest.raises(BadConfig, match=r"^stages\.0\.dataset: field required\.$"):
        configs.validate(driver.Recipe, tree)


def test_an_unknown_part_is_named_with_the_nearest_and_all_others() -> None:
    with pytest.raises(
        UnknownPart,
        match=r"^no method called 'gpro'\. Did you mean 'grpo'\? Available: awm, .*, dpo, .*, grpo, .*, sft, .*\.$",
    ):
        _resolve("stages.1.method.name=gpro")


def test_numbers_that_yaml_takes_for_text_are_numbers() -> None:
    assert yaml.safe_load("2e-4") == "2e-4"  # YAML 1.1's trap
    assert _resolve("stages.1.method.clip=2e-4").stages[1].method.clip == 2e-4


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"there is no recipe at '.*nowhere.yaml'; give the path of a YAML file"):
        configs.read(tmp_path / "nowhere.yaml")
    with pytest.raises(BadConfig, match=r"there is no recipe at"):
        configs.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"run: [1", r"is not valid YAML: while parsing"),
        (b"\xff\xfe\x00run", r"is not valid YAML"),
        (b"- run\n- model", r"holds list, but a recipe is a mapping with the keys run, model and stages"),
        (b"", r"holds NoneType, but a recipe is a mapping"),
        (b"!!python/object/apply:os.system ['true']", r"is not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: bytes, sentence: str) -> None:
    (tmp_path / "own.yaml").write_bytes(text)
    with pytest.raises(BadConfig, match=sentence):
        configs.read(tmp_path / "own.yaml")


def test_every_value_is_explained_with_its_origin() -> None:
    given = ["stages.1.method.clip=2e-4", "stages.0.learner={lr: 0.5}"]
    tree = _tree()
    rows = {path: (value, origin) for path, value, origin in configs.explain(_resolve(*given), tree, given)}
    assert rows["stages.1.method.clip"] == (2e-4, "--set")
    assert rows["stages.0.learner.lr"] == (0.5, "--set")
    assert rows["stages.1.learner.lr"] == (1e-5, "default")
    assert rows["stages.0.steps"] == (5, "recipe")
    assert rows["stages.1.method.name"] == ("grpo", "recipe")  # given by its bare name
    assert rows["stages.1.method.kind"] == ("flow", "default")
    assert rows["stages.1.rewards.0.name"] == (LINEAR, "recipe")
    assert rows["stages.1.rewards.0.weight"] == (0.5, "recipe")
    assert rows["stages.1.rewards.1.weight"] == (1.0, "default")
    assert rows["evaluate.metrics.0.name"] == ("tests.parts.mean_level:build", "recipe")
    assert rows["run.seed"] == (0, "default")


def test_a_dumped_config_is_a_recipe_of_the_same_hash() -> None:
    found = _resolve("stages.1.rewards.0.weight=2")
    again = configs.validate(driver.Recipe, configs.dump(found))
    assert again == found
    assert configs.digest(again) == configs.digest(found)
    assert configs.digest(_resolve("run.seed=1")) != configs.digest(_resolve())


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_fits(path: Path) -> None:
    found = configs.validate(driver.Recipe, configs.read(path))
    assert found.stages


def test_the_demos_recipe_fits(tmp_path: Path) -> None:
    found = configs.validate(driver.Recipe, demo.recipe(tmp_path / "data"))
    assert driver.labels(found) == ["sft", "grpo", "collect", "dpo"]
    assert found.stages[0].dataset.path == tmp_path / "data" / "clips"
