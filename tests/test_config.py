"""Recipes: precedence, overrides, and one sentence for everything that does not fit."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelign import config as configs
from reelign import driver
from reelign.errors import BadConfig, UnknownPart, UserError
from reelign.parts import Settings
from reelign.playground import demo

ROOT = Path(__file__).parents[1]
LINEAR, CLARITY = "tests.parts.linear_reward:build", "playground_clarity"
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
                "rewards": [{"name": LINEAR, "weight": 0.5}, CLARITY],
            },
        ],
    }


def _resolve(*assignments: str) -> driver.Recipe:
    return configs.validate(driver.Recipe, configs.override(_tree(), assignments))


@pytest.mark.parametrize(
    "assignment", ["evaluate.samplers=[{steps: 8}]", "evaluate.samplers=[{shift: 4.0}]", "run.seed=1"]
)
def test_saying_one_setting_of_a_sampler_leaves_the_others_at_their_defaults(assignment: str) -> None:
    evaluation = _resolve(assignment).evaluate
    assert evaluation is not None
    assert evaluation.samplers[0].guidance == 3.0


def test_a_group_of_settings_keeps_what_its_own_default_says() -> None:
    from reelign.methods.dpo import Config as Dpo

    assert Dpo.model_validate({"name": "dpo", "levels": {"shift": 2.0}}).levels.law == "uniform"
    assert Dpo.model_validate({"name": "dpo", "levels": {"law": "logit_normal"}}).levels.law == "logit_normal"


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
    found = configs.override(
        _tree(), ["stages.1.method.clip=1", "stages.1.rewards.1.half=2", "evaluate.dataset.size=4"]
    )
    assert found["stages"][1]["method"] == {"name": "grpo", "clip": 1}
    assert found["stages"][1]["rewards"][1] == {"name": CLARITY, "half": 2}
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
        ("stages.0.steps=[1", r"--set stages\.0\.steps, line 1 is not valid YAML: while parsing a flow sequence"),
        ("stages.²=1", r"'stages\.²' must be a number from 0 to 1"),
        ("stages.99999999=1", r"'stages\.99999999' must be a number from 0 to 1"),
        ("stages.1.rewards.1.k.x=\ud800", r"--set stages\.1\.rewards\.1\.k\.x is not valid YAML"),
        ("model={name: wan, name: gaussian}", r"--set model, line 1: the key 'name' stands in line 1 already"),
        (".".join("abcdefgh" * 6) + "=1", r"--set a\.b\..*: no setting is called that"),
        ("run.na\nme=1", r"--set run\.na me: no setting is called that"),
        ("stages.0.steps=" + "9" * 5000, r"--set stages\.0\.steps, line 1: '999.*999' is no int\.$"),
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
            r"^stagez: there is no such key \(did you mean 'stages'\?\); known here: run, model, stages, eval",
        ),
        (
            "run.sede=1",
            r"^run\.sede: there is no such key \(did you mean 'seed'\?\); known here: name, seed, root, save_every\.$",
        ),
        ("evaluate.datset=x", r"^evaluate\.datset: there is no such key \(did you mean 'dataset'\?\)"),
        (
            "evaluate.samplers=[{shfit: 1}]",
            r"^evaluate\.samplers\.0\.shfit: .* \(did you mean 'shift'\?\); known here: .*\bguidance\b",
        ),
        (
            "evaluate.sampler.steps=8",
            r"^evaluate\.sampler: there is no such key any more; write samplers: \[\{steps: 16, guidance: 3\.0\}\],",
        ),
        ("stages.1.grop=1", r"^stages\.1\.grop: there is no such key \(did you mean 'group'\?\)"),
        ("stages.1.method.clop=1", r"^stages\.1\.method\.clop: there is no such key \(did you mean 'clip'\?\)"),
        (
            "stages.0.method.levels.meen=1",
            r"^stages\.0\.method\.levels\.meen: .* \(did you mean 'mean'\?\); known here: law, mean, std,",
        ),
        (
            "stages.0.gate.tragets=[a]",
            r"^stages\.0\.gate\.tragets: .* 'targets'\?\); known here: targets, sampler, guards, min_slice, min_gain, ",
        ),
        (
            "stages.1.rewards.0.kk=1",
            r"^stages\.1\.rewards\.0\.kk: there is no such key \(did you mean 'k'\?\); known here: name, k, limit\.$",
        ),
        ("model.sied=1", r"^model\.sied: there is no such key \(did you mean 'side'\?\)"),
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
        ("run.name=3", r"^run\.name: input should be a valid string \(given: 3\)\.$"),
        ("stages=[]", r"^stages: .*at least 1 item"),
        ("stages=5", r"^stages: must be a list \(given: 5\)\.$"),
        ("run=5", r"^run: must be a mapping of settings \(given: 5\)\.$"),
        ("stages.0.learner.lr=.inf", r"^stages\.0\.learner\.lr: input should be a finite number \(given: inf\)\.$"),
        ("stages.0.learner.betas=[0.9]", r"^stages\.0\.learner\.betas\.1: field required\.$"),
        ("stages.0.learner.betas=[0.9, x]", r"^stages\.0\.learner\.betas\.1: input should be .* \(given: 'x'\)\.$"),
        ("stages.0.steps=0", r"^stages\.0\.steps: input should be greater than or equal to 1 \(given: 0\)\.$"),
        ("stages.1.method.kind=warp", r"^stages\.1\.method\.kind: input should be 'flow', .* \(given: 'warp'\)\.$"),
        ("stages.0.learner.lr=fast", r"^stages\.0\.learner\.lr: .* \(given: 'fast'\)\.$"),
        ("runtime.name=ray", r"^runtime\.name: input should be 'local' \(given: 'ray'\)\.$"),
        ("stages.1.rewards.0.weight=-1", r"^stages\.1\.rewards\.0\.weight: input should be greater than 0"),
        ("model={side: 2}", r"^model: a model needs a name, as in \{name: wan\}; given: \{'side': 2\}\.$"),
        ("stages.0.method=7", r"^stages\.0\.method: a method needs a name.*; given: 7\.$"),
        (
            "stages.1.rewards.0={name: degraded, of: [1]}",
            r"^stages\.1\.rewards\.0\.of: a reward needs a name.*\[1\]\.$",
        ),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_named_by_its_full_path(assignment: str, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        _resolve(assignment)


def test_a_key_of_an_earlier_version_is_told_with_its_new_form() -> None:
    with pytest.raises(BadConfig, match=r"^lora: there is no such key any more; write adapter: \{name: lora, rank"):
        configs.part("model", {"name": "wan", "lora": {"rank": 4}})
    with pytest.raises(BadConfig, match=r"^an adapter needs a name, as in \{name: lora\}; given: \{'rank': 4\}\.$"):
        configs.part("adapter", {"rank": 4})


def test_a_missing_key_is_named() -> None:
    tree = _tree()
    del tree["stages"][0]["dataset"]
    with pytest.raises(BadConfig, match=r"^stages\.0\.dataset: field required\.$"):
        configs.validate(driver.Recipe, tree)


def test_an_unknown_part_is_named_with_the_nearest_and_all_others() -> None:
    with pytest.raises(
        UnknownPart,
        match=r"^stages\.1\.method: no method called 'gpro' \(did you mean 'grpo'\?\); available: awm, .*, sft, .*\.$",
    ):
        _resolve("stages.1.method.name=gpro")
    with pytest.raises(
        UnknownPart, match=r"^stages\.1\.method\.modules\.0\.backbone: no backbone called 'x'; available: "
    ):
        _resolve("stages.1.method.modules=[{name: vipo, backbone: x}]")


@pytest.mark.parametrize(
    "value", ["x" * 100_000, ["x" * 999] * 999, {f"k{i}": i for i in range(999)}, "\U0001f600" * 999]
)
@pytest.mark.parametrize(
    "path", ["run.seed", "model", "stages", "stages.0.method", "stages.1.rewards", "evaluate", "nonsense"]
)
def test_a_long_value_does_not_make_a_long_sentence(path: str, value: object) -> None:
    tree = configs.override(_tree(), [f"{path}=null"])
    node: Any = tree
    for key in path.split(".")[:-1]:
        node = node[int(key) if isinstance(node, list) else key]
    last = path.split(".")[-1]
    node[int(last) if isinstance(node, list) else last] = value
    with pytest.raises(UserError) as refusal:
        configs.validate(driver.Recipe, tree)
    assert len(str(refusal.value)) < 600
    assert "\n" not in str(refusal.value)


class _Forms(Settings):
    either: int | str = 1
    pair: tuple[int, int] | int = 1
    group: driver.RunConfig | tuple[driver.RunConfig, ...] | None = None


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"either": [1]}, r"^either: input should be a valid integer or input should be a valid string\.$"),
        ({"pair": [1, "x"]}, r"^pair\.1: input should be a valid integer.* \(given: 'x'\)\.$"),
        ({"group": {"name": "a", "seed": "x"}}, r"^group\.seed: input should be a valid integer.* \(given: 'x'\)\.$"),
        ({"group": {"nam": "a"}}, r"^group\.name: field required\.$"),
    ],
)
def test_a_setting_of_several_forms_is_named_without_pydantics_names_for_them(tree: Any, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        configs.validate(_Forms, tree)


def test_a_setting_inside_nothing_can_be_overridden() -> None:
    tree = {"model": {"name": "wan", "adapter": None}}
    assert configs.override(tree, ["model.adapter.rank=4"])["model"]["adapter"] == {"rank": 4}


def test_overriding_a_value_changes_no_other_that_an_alias_made_alike(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("a: &same {k: 1}\nb: *same\n")
    found = configs.override(configs.read(tmp_path / "own.yaml"), ["a.k=2"])
    assert found == {"a": {"k": 2}, "b": {"k": 1}}


def test_a_recipe_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").write_text("run: {name: mine}")
    assert configs.read(Path("~/own.yaml")) == {"run": {"name": "mine"}}


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _large(path: Path) -> None:
    path.write_bytes(b" " * 2_000_000)


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, r"^there is no recipe at '.*own\.yaml'; give the path of a YAML file\.$"),
        (_pipe, r"own\.yaml' is no regular file"),
        (_folder, r"own\.yaml' is no regular file"),
        (_large, r"own\.yaml' has 2,000,000 bytes, too many for a recipe"),
        (_loop, r"own\.yaml' cannot be read \(Too many levels of symbolic links\)"),
    ],
)
def test_what_is_no_recipe_file_is_told_without_reading_it(
    tmp_path: Path, make: Callable[[Path], None], sentence: str
) -> None:
    make(tmp_path / "own.yaml")
    with pytest.raises(BadConfig, match=sentence):
        configs.read(tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a/" * 3000, r"cannot be read \(File name too long\)"),
        ("a\0b", r"cannot be read \(embedded null byte\)"),
        ("~nobody-of-that-name/own.yaml", r"cannot be read \(Could not determine home directory\.\)"),
    ],
)
def test_a_path_that_cannot_be(name: str, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence) as refusal:
        configs.read(Path(name))
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"run: [1", r"line 1 is not valid YAML: while parsing"),
        (b"\xff\xfe\x00run", r"is not valid YAML: byte 0 is no UTF-8; save it as UTF-8\.$"),
        (b"- run\n- model", r"holds a list, but must be a mapping with the keys run, model and stages\.$"),
        (b"", r"holds nothing, but must be a mapping"),
        (b"!!python/object/apply:os.system ['true']", r"line 1: the tag 'python/object/apply:os\.system' is not read"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: bytes, sentence: str) -> None:
    (tmp_path / "own.yaml").write_bytes(text)
    with pytest.raises(BadConfig, match=sentence):
        configs.read(tmp_path / "own.yaml")


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_bytes(b"\xef\xbb\xbfrun: {name: mine}")
    assert configs.read(tmp_path / "own.yaml") == {"run": {"name": "mine"}}


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


def test_values_are_assigned_as_they_are_and_the_tree_stays() -> None:
    tree = {"a": {"k": 1}, "b": ["grpo"]}
    assert configs.assign(tree, {"a.k": "1e3", "b.0.clip": None}) == {
        "a": {"k": "1e3"},
        "b": [{"name": "grpo", "clip": None}],
    }
    assert tree == {"a": {"k": 1}, "b": ["grpo"]}


def test_of_two_overrides_of_one_path_the_later_counts() -> None:
    assert configs.override({}, ["a.k=1", "a={j: 2}", "a.k=3"]) == {"a": {"j": 2, "k": 3}}
