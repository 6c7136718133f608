"""A finished run is told from its files alone, and only while every one of them is what the run has sealed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.driver.toys import DATA, Watcher, go, interrupt, tree_of

from reelign import config as configs
from reelign import driver, finished
from reelign.files import seal
from reelign.report import page
from reelign.runtime.header import SCHEMA

SENTENCE = "is finished already; to train on, resume it with more steps than 2 in its last stage, dpo, as in --set st"


def _tree(root: Path, **changes: Any) -> dict[str, Any]:
    """A short stage that trains, one that collects, and one that learns from what was collected."""
    tree = tree_of(root, model={"name": "gaussian", "side": 16, "mean": 0.5, "var": 0.002})
    collect = {
        "name": "collect", "dataset": DATA, "prompts": 4, "per_step": 2, "members": 2, "tie": 0.0,
        "sampler": {"steps": 2}, "rewards": ["tests.parts.linear_reward:build"],
    }  # fmt: skip
    learn = {
        "name": "offline", "steps": 2, "batch": 2, "method": "dpo",
        "dataset": {"name": "pair_list", "path": "{run}/pairs/pairs.jsonl"}, "learner": {"lr": 0.01},
    }  # fmt: skip
    train = {"name": "offline", "steps": 1, "batch": 2, "dataset": DATA, "method": "sft", "learner": {"lr": 0.01}}
    return {**tree, "stages": [train, collect, learn], **changes}


def _run(tree: dict[str, Any], resume: bool = False, watcher: Watcher | None = None) -> Path:
    recipe = configs.validate(driver.Recipe, tree)
    folder = go(recipe, watcher or Watcher(), resume, about={"given": finished.given(tree)})
    page.write(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of such a run; tests copy it."""
    root = tmp_path_factory.mktemp("made")
    _run(_tree(root))
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """The folder of a copy."""
    return shutil.copytree(made, tmp_path / "runs") / "toy"


def test_a_finished_run_is_told_with_how_to_go_on(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert finished.told(run, _tree(run.parent)) == f"{run} {SENTENCE}ages.2.steps=4."
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_where_it_lies_and_how_it_is_saved_does_not_matter(run: Path) -> None:
    tree = _tree(run.parent)
    moved = {**tree, "run": {**tree["run"], "root": "./elsewhere", "name": "other", "save_every": 9}, "runtime": {}}
    assert finished.told(run, moved)


def test_the_driver_says_the_same(run: Path) -> None:
    watcher = Watcher()
    _run({**_tree(run.parent), "runtime": {"threads": 1}}, resume=True, watcher=watcher)
    assert watcher.events == [f"{run} {SENTENCE}ages.2.steps=4."]


@pytest.mark.parametrize("setting", ["run.seed=4", "stages.2.steps=3", "stages.0.batch=3", "evaluate.seed=1"])
def test_of_another_recipe_nothing_is_told(run: Path, setting: str) -> None:
    assert finished.told(run, configs.override(_tree(run.parent), [setting])) == ""


def test_an_extended_run_is_the_longer_one(run: Path) -> None:
    longer = configs.override(_tree(run.parent), ["stages.2.steps=3"])
    _run(longer, resume=True)
    assert "more steps than 3 in" in finished.told(run, longer)
    assert finished.told(run, _tree(run.parent)) == ""


def test_a_run_that_was_stopped_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(driver.Interrupted):
        _run(_tree(tmp_path), watcher=Watcher("dpo 1", interrupt))
    assert finished.told(tmp_path / "toy", _tree(tmp_path)) == ""


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "changed": _flip,
    "gone": lambda path: path.unlink(),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"{}\n"),
    "empty": lambda path: path.write_bytes(b""),
    "a fifo": lambda path: (path.unlink(), os.mkfifo(path)),
}
FILES = (
    "config.json",
    "ledger.jsonl",
    "metrics.jsonl",
    "evaluations/dpo.json",
    "evaluations/base.json",
    "checkpoints/dpo-end/state.json",
    "final.json",
    "final/offsets.safetensors",
    "pairs/pairs.jsonl",
    "pairs/collected.jsonl",
)


CASES = [(name, how) for name in FILES for how in DAMAGE]
CASES.remove(("pairs/collected.jsonl", "longer"))  # rows behind those of the stage's steps are nobody's


@pytest.mark.parametrize(("name", "how"), CASES)
def test_no_damaged_run_is_called_finished(run: Path, name: str, how: str) -> None:
    DAMAGE[how](run / name)
    # The order of times is as it was: what is asked for here is what the files say.
    os.utime(run / "report.html")
    assert finished.told(run, _tree(run.parent)) == ""


def test_nor_one_whose_report_is_gone_or_older_than_its_model(run: Path) -> None:
    exported = (run / "final.json").stat().st_mtime_ns
    os.utime(run / "report.html", ns=(exported - 1, exported - 1))
    assert finished.told(run, _tree(run.parent)) == ""
    (run / "report.html").unlink()
    assert finished.told(run, _tree(run.parent)) == ""


@pytest.mark.parametrize(
    "left",
    [
        ".final.tmp-0123abcd",
        "checkpoints/.dpo-00002.tmp-0123abcd",
        "evaluations/.dpo.json.tmp-0123abcd",
        "evaluations/steps/.dpo@1.json.tmp-0123abcd",
        "pairs/.pairs.jsonl.tmp-0123abcd",
        "pairs/clips/.a.mp4.tmp-0123abcd",
        "samples/base/.a.mp4.tmp-0123abcd",
        "checkpoints/sft-00001",  # should have been removed, and could not be
    ],
)
def test_nor_one_where_something_is_left_that_a_start_takes_away(run: Path, left: str) -> None:
    (run / left).parent.mkdir(parents=True, exist_ok=True)
    if left.startswith("checkpoints/sft"):
        state = json.loads((run / "checkpoints" / "dpo-end" / "state.json").read_text())
        content = {k: v for k, v in state.items() if k not in ("schema", "self")} | {"name": "sft-00001", "number": 1}
        shutil.copytree(run / "checkpoints" / "dpo-end", run / left)
        (run / left / "state.json").write_text(json.dumps({**content, "schema": SCHEMA, "self": seal(content)}))
    else:
        (run / left).write_bytes(b"half")
    assert finished.told(run, _tree(run.parent)) == ""
    _run(_tree(run.parent), resume=True)
    assert not (run / left).exists()


def test_nor_one_of_another_version(run: Path) -> None:
    content = {k: v for k, v in json.loads((run / "config.json").read_text()).items() if k != "seal"}
    content["version"] = "0.0.1"
    (run / "config.json").write_text(json.dumps({**content, "seal": seal(content)}))
    assert finished.told(run, _tree(run.parent)) == ""


def test_nor_what_is_no_run_at_all(tmp_path: Path) -> None:
    assert finished.told(tmp_path / "nowhere", _tree(tmp_path)) == ""
    (tmp_path / "config.json").mkdir()
    assert finished.told(tmp_path, _tree(tmp_path)) == ""
