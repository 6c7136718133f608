"""What a spec may say, and the sentence that refuses what it may not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelign import config as configs
from reelign.bakeoff import spec as specs
from reelign.bakeoff.spec import Spec
from reelign.errors import BadConfig, UserError

Make = Callable[..., Any]
ROOT = Path(__file__).parents[2]


def test_entries_are_laid_over_what_they_have_in_common(spec: Make) -> None:
    fast, slow = spec().entries
    assert fast.stage.learner.lr == 0.05
    assert slow.stage.learner.lr == 0.001
    assert slow.stage.method == fast.stage.method
    assert slow.stage.steps == specs.STEPS
    assert list(specs.differences({e.label: specs.stage_tree(e) for e in (fast, slow)})) == ["learner.lr"]


@pytest.mark.parametrize(
    ("common", "own", "expected"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"m": {"name": "x", "k": 1}}, {"m": {"name": "y", "j": 2}}, {"m": {"name": "y", "j": 2}}),
        ({"m": {"name": "x", "k": 1}}, {"m": {"name": "x", "j": 2}}, {"m": {"name": "x", "k": 1, "j": 2}}),
        ({"m": {"name": "x", "k": 1}}, {"m": "x"}, {"m": {"name": "x", "k": 1}}),
        ({"m": {"name": "x", "k": 1}}, {"m": "y"}, {"m": "y"}),
        ({"m": "x"}, {"m": {"k": 1}}, {"m": {"name": "x", "k": 1}}),
        ({"m": "x"}, {"m": {"name": "y"}}, {"m": {"name": "y"}}),
        ({}, {"m": "x"}, {"m": "x"}),
    ],
)
def test_merging(common: dict[str, Any], own: dict[str, Any], expected: dict[str, Any]) -> None:
    before = repr(common)
    assert specs.merged(common, own) == expected
    assert repr(common) == before


def test_a_number_of_seeds_stands_for_the_first_so_many(spec: Make) -> None:
    assert spec(seeds=4).seeds == (0, 1, 2, 3)
    assert spec(seeds=[7, 3, 5]).seeds == (7, 3, 5)
    assert spec(seeds=[1], exploratory=True).seeds == (1,)


def _entries(**stage: Any) -> dict[str, Any]:
    return {"entries": [{"label": "a", "stage": stage}]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"budgets": 3}, "budgets: there is no such key (did you mean 'budget'?)"),
        ({"budget": 0}, "budget: input should be greater than or equal to 1"),
        ({"checks": 1}, "checks: input should be greater than or equal to 2"),
        ({"name": "a/b"}, "name: a name is letters, digits and . _ -"),
        ({"seeds": 2}, "seeds: a comparison needs at least 3 seeds"),
        ({"seeds": [1, 1, 2]}, "seeds: seeds are different whole numbers"),
        ({"seeds": [-1, 1, 2]}, "seeds: seeds are different whole numbers"),
        ({"seeds": 0, "exploratory": True}, "seeds: tuple should have at least 1 item"),
        ({"entries": []}, "entries: tuple should have at least 1 item"),
        ({"entries": "a"}, "entries: must be a list"),
        ({"entries": [{"label": "a"}, {"label": "a"}]}, "entries: two entries are called 'a'"),
        ({"entries": [{"label": "a b"}]}, "entries.0.label: a name is letters, digits and . _ -"),
        ({"entries": [{"label": "a", "stages": {}}]}, "entries.0.stages: there is no such key (did you mean 'stage'?)"),
        ({"entries": [{"label": "a", "stage": 3}]}, "entries.0.stage: must be a mapping of settings"),
        (_entries(lerner={}), "entries.0.stage.lerner: there is no such key (did you mean 'learner'?)"),
        (_entries(method={"clipp": 1}), "entries.0.stage.method.clipp: there is no such key (did you mean 'clip'?)"),
        (_entries(method={"clip": -1}), "entries.0.stage.method.clip: input should be greater than 0"),
        (_entries(method="gpro"), "no method called 'gpro' (did you mean 'grpo'?)"),
        (_entries(method="sft"), "entries.0.stage.method: 'sft' trains on clips or pairs that exist"),
        (_entries(steps=3), "entries: the stage of entry 'a' has 'steps', but a run goes on until its budget is spent"),
        (_entries(rewards=[]), "entries: the stage of entry 'a' changes 'rewards', which all entries share"),
        (_entries(dataset="playground"), "entries: the stage of entry 'a' changes 'dataset', which all entries share"),
        (_entries(name="offline"), "the stage of entry 'a' is 'offline', but a bake-off compares online stages"),
        ({"stage": {"steps": 3}}, "stage: the stage has 'steps', but a run goes on until its budget is spent"),
        ({"stage": {"gate": {}}}, "stage: the stage has 'gate', but a bake-off has no gates"),
        ({"stage": {}}, "entries.0.stage.dataset: field required"),
        ({"target": {"measure": "level"}}, "target: give either `value`, a level, or `match`"),
        ({"target": {"measure": "level", "value": 1, "match": "fast"}}, "target: give either `value`"),
        ({"target": {"measure": "level", "match": "quick"}}, "target: there is no entry 'quick'; entries: fast, slow"),
        ({"baseline": "quick"}, "baseline: there is no entry 'quick'; entries: fast, slow"),
        ({"model": {"name": "gausian"}}, "no model called 'gausian' (did you mean 'gaussian'?)"),
    ],
)
def test_a_bad_spec_is_refused_with_one_sentence(spec_tree: Make, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        configs.validate(Spec, spec_tree(**changes))
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_bakeoff_ranks_under_one_sampler(spec_tree: Make) -> None:
    tree = spec_tree()
    tree["evaluate"]["samplers"] = [{"steps": 4}, {"steps": 8}]
    sentence = (
        r"^evaluate: a bake-off ranks under one sampler, but samplers names s4g3, s8g3; leave one, and judge under"
    )
    with pytest.raises(UserError, match=sentence):
        configs.validate(Spec, tree)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"measures": ["lvel"]}, "measures: no metric of `evaluate` measures 'lvel'; measured: level."),
        ({"target": {"measure": "mood", "value": 1}}, "target.measure: no metric of `evaluate` measures 'mood'"),
        ({"model": {"name": "wan", "weights": "nowhere"}}, "'nowhere' is no pipeline folder"),
    ],
)
def test_what_can_be_known_to_fail_fails_before_any_compute(spec: Make, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        specs.check(spec(**changes))
    assert sentence in str(refusal.value)


def test_a_stage_that_cannot_be_is_named_by_its_entry(spec_tree: Make) -> None:
    tree = spec_tree()
    tree["stage"]["dataset"] = {"name": "pair_list", "path": "pairs.jsonl"}
    with pytest.raises(UserError, match=r"^entry 'fast': stage\.dataset: .*pairs\.jsonl"):
        specs.check(configs.validate(Spec, tree))
    tree = spec_tree()
    tree["stage"]["dataset"] = {"name": "playground", "prompts": 2}
    with pytest.raises(UserError, match="2 prompts, but 3 different ones"):
        specs.check(configs.validate(Spec, tree))


def test_too_few_seeds_are_refused_as_a_bad_config(spec_tree: Make) -> None:
    with pytest.raises(BadConfig, match="exploratory: true"):
        configs.validate(Spec, spec_tree(seeds=[0, 1]))


def test_a_run_is_a_recipe_of_its_own(spec: Make) -> None:
    found = spec()
    recipe = specs.recipe(found, found.entries[1], 2)
    assert recipe.run.name == "slow-seed2"
    assert recipe.run.seed == 2
    assert recipe.stages == (found.entries[1].stage.model_copy(update={"label": "slow"}),)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "bakeoff").glob("*.yaml")), ids=lambda path: path.name)
def test_the_recipes_can_be_run(path: Path) -> None:
    specs.check(configs.validate(Spec, configs.read(path)))
