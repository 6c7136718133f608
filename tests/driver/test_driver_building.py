"""What a run builds and opens, and how often: each part once, where it is used; a look at a recipe builds none."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.driver.toys import Watcher

from reelign import config as configs
from reelign import driver, parts, video
from reelign.parts import PartConfig
from reelign.playground import demo

ROOT = Path(__file__).parents[2]
Call = Callable[..., tuple[int, str, str]]
Counted = Counter[tuple[str, str]]
PROMPT = "A large red circle moves left slowly on a teal background."
SMALL: dict[str, dict[str, Any]] = {
    "sft": {"stages.0.steps": 1, "stages.0.batch": 2, "stages.0.dataset.size": 4},
    "grpo": {"stages.0.steps": 1, "stages.0.prompts": 2, "stages.0.group": 2, "stages.0.dataset.prompts": 4},
    "dpo": {
        "stages.0.prompts": 2,
        "stages.0.members": 2,
        "stages.0.tie": 0.0,
        "stages.0.dataset.prompts": 4,
        "stages.1.steps": 1,
        "stages.1.batch": 2,
    },
    "wan21-1.3b-lora": {
        "evaluate.samplers": [{"steps": 2}],
        "stages.0.steps": 1,
        "stages.0.batch": 1,
        "stages.1.steps": 1,
        "stages.1.prompts": 1,
        "stages.1.group": 2,
        "stages.1.sampler.steps": 3,
        "stages.2.steps": 1,
        "stages.2.batch": 1,
    },
}
PLAYGROUND = {
    "evaluate.dataset.prompts": 2,
    "evaluate.members": 2,
    "evaluate.videos": 0,
    "evaluate.samplers": [{"steps": 2}],
}
BUILT: dict[str, dict[str, int]] = {
    "sft": {"offline": 1, "sft": 1},
    "grpo": {"online": 1, "grpo": 1, "attributes": 1, "motion": 1, "physics": 1, "safety": 1, "clarity": 1},
    "dpo": {"collect": 1, "attributes": 1, "motion": 1, "physics": 1, "offline": 1, "dpo": 1},
    "wan21-1.3b-lora": {"offline": 2, "sft": 1, "online": 1, "grpo": 1, "steady_motion": 1, "dpo": 1},
}
"""Stages, methods and rewards of each recipe; beside them one model, and each metric once."""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """How often each part is built, by kind and settings."""
    found: Counted = Counter()
    build = parts.build

    def counting(kind: parts.Kind, config: PartConfig, *args: object) -> Any:
        found[kind, json.dumps(config.model_dump(mode="json"), sort_keys=True)] += 1
        return build(kind, config, *args)

    monkeypatch.setattr(parts, "build", counting)
    return found


def _names(counted: Counted, *kinds: str) -> dict[str, int]:
    """How often each was built, by the last word of its name."""
    names: Counter[str] = Counter()
    for (kind, config), n in counted.items():
        if kind in kinds:
            names[json.loads(config)["name"].removeprefix("playground_")] += n
    return dict(names)


def _kinds(counted: Counted) -> set[str]:
    return {kind for kind, _ in counted}


def _recipe(name: str, place: Path, wan: Path) -> driver.Recipe:
    """A shipped recipe on little data with few steps."""
    small = {"run.root": str(place), "runtime.threads": 1, **SMALL[name]}
    small |= _own_data(place, wan) if name.startswith("wan") else PLAYGROUND
    tree = configs.read(ROOT / "recipes" / f"{name}.yaml")
    for index, stage in enumerate(tree["stages"]):
        small |= {f"stages.{index}.sampler.steps": 6} if name in ("grpo", "dpo") and "sampler" in stage else {}
    tree = configs.override(tree, [f"{key}={json.dumps(value)}" for key, value in small.items()])
    return configs.validate(driver.Recipe, tree)


def _own_data(place: Path, wan: Path) -> dict[str, Any]:
    """What the recipe for Wan reads, tiny."""
    for name in ("a", "b"):
        video.write(place / "data" / f"{name}.mp4", torch.rand(5, 3, 32, 32), 8, lossless=True)
        (place / "data" / f"{name}.txt").write_text(PROMPT)
    (place / "prompts.txt").write_text(f"{PROMPT}\n")
    (place / "data" / "pairs.jsonl").write_text(f'{{"prompt": "{PROMPT}", "chosen": "a.mp4", "rejected": "b.mp4"}}\n')
    prompts, pairs = str(place / "prompts.txt"), str(place / "data" / "pairs.jsonl")
    own = {"stages.0.dataset.path": str(place / "data"), "stages.0.dataset.quarantine": 1.0}
    own |= {"stages.1.dataset.path": prompts, "stages.2.dataset.path": pairs, "evaluate.dataset.path": prompts}
    size = {"frames": 5, "height": 32, "width": 32, "fps": 8.0}
    return {**own, "model.weights": str(wan), "model.size": size, "model.text_length": 16}


@pytest.mark.parametrize("name", BUILT)
def test_each_part_of_a_shipped_recipe_is_built_once_for_the_stage_that_uses_it(
    name: str, tiny_wan21: Path, tmp_path: Path, counted: Counted
) -> None:
    recipe = _recipe(name, tmp_path, tiny_wan21)
    assert not counted  # nor is anything opened
    driver.check(recipe)
    # An adapter holds nothing until it is attached: it is compared with the network's form.
    assert _kinds(counted) - {"adapter"} == {"dataset"}
    assert set(counted.values()) == {1}
    counted.clear()
    driver.run(recipe, [Watcher()])
    assert _names(counted, "stage", "method", "reward") == BUILT[name]
    assert _names(counted, "model") == {"wan": 1}
    assert recipe.evaluate is not None
    assert _names(counted, "metric") == {metric.name: 1 for metric in recipe.evaluate.metrics}
    opened = [n for (kind, _), n in counted.items() if kind == "dataset"]
    assert set(opened) == {1}
    assert len(opened) == len({json.dumps(c.model_dump(mode="json")) for _, c in driver.recipe.all_datasets(recipe)})


def test_the_demo_builds_each_part_once_for_the_stage_that_uses_it(
    reelign: Call, tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo.write_data(tmp_path / "demo-data", clips=4, prompts=4, judged=2)
    small = {"runtime.threads": 1, "evaluate.videos": 0, "evaluate.samplers": [{"steps": 2}], "stages.0.steps": 1}
    small |= {"stages.0.batch": 2, "stages.1.steps": 1, "stages.1.prompts": 2, "stages.1.group": 2}
    small |= {"stages.2.prompts": 2, "stages.2.members": 2, "stages.2.tie": 0.0, "stages.3.steps": 1}
    small |= {"stages.3.batch": 1, "stages.1.sampler.steps": 6, "stages.2.sampler.steps": 2}
    settings = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    code, _, err = reelign("demo", "--out", tmp_path, *settings)
    assert code == 0, err
    seen = {"attributes": 2, "motion": 2, "physics": 2, "clarity": 2, "safety": 1}
    assert _names(counted, "reward") == seen  # one stage trains on them, another ranks by them
    assert _names(counted, "stage", "method") == {
        "offline": 2, "online": 1, "collect": 1, "sft": 1, "grpo": 1, "dpo": 1
    }  # fmt: skip
    assert set(_names(counted, "metric", "model").values()) == {1}
    assert {n for (kind, _), n in counted.items() if kind == "dataset"} == {1}


@pytest.mark.parametrize("words", [("config",), ("align", "--dry-run")], ids=" ".join)
@pytest.mark.parametrize("recipe", [*sorted((ROOT / "recipes").glob("[!w]*.yaml"))], ids=lambda path: path.stem)
def test_to_look_at_a_recipe_builds_nothing_and_opens_data_only_for_a_dry_run(
    reelign: Call, recipe: Path, words: tuple[str, ...], tmp_path: Path, counted: Counted
) -> None:
    code, _, err = reelign(words[0], recipe, *words[1:], "--set", f"run.root={tmp_path}")
    assert code == 0, err
    assert _kinds(counted) == ({"dataset"} if words[1:] else set())
    assert set(counted.values()) <= {1}


def test_what_a_module_reads_is_the_stages_own_where_it_is_the_same(tmp_path: Path, counted: Counted) -> None:
    data = {"name": "tests.parts.gaussian_data", "var": 0.5}
    module = {"name": "ddrl", "dataset": data, "batch": 2}
    stage = {"name": "online", "steps": 2, "prompts": 2, "group": 2, "dataset": data, "sampler": {"steps": 4}}
    stage |= {"method": {"name": "grpo", "among": 3, "modules": [module]}, "rewards": ["tests.parts.linear_reward"]}
    tree = {"run": {"name": "toy", "root": str(tmp_path)}, "model": {"name": "gaussian", "side": 2, "bins": 2}}
    run = driver.run(configs.validate(driver.Recipe, {**tree, "stages": [stage]}), [Watcher()])
    assert {n for (kind, _), n in counted.items() if kind == "dataset"} == {1}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all("online/data_error" in row for row in rows)
