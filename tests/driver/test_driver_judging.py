"""Evaluations on the way: they move no bit, interrupted or not, and the best can be what a stage leaves."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.driver.toys import InChild, Watcher, die, go, interrupt, recipe_in, rows_of, tree_of

from reelign import config as configs
from reelign import driver
from reelign.errors import BadConfig
from reelign.report import load

AVERAGED = "stages.0.learner.ema=0.9"


def _recipe(root: Path, *assignments: str, stages: int = 1) -> driver.Recipe:
    """The first stages of the toy run, which are worse at `level` with every step, without gates."""
    chain = tree_of(root)["stages"][:stages]
    for stage in chain:
        stage.pop("gate", None)
    return recipe_in(root, *assignments, stages=chain)


def _looks(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in (folder / "evaluations" / "steps").glob("*.json")}


def _weights(folder: Path) -> dict[str, Any]:
    return {name: value.tolist() for name, value in load_file(folder / "final" / "offsets.safetensors").items()}


def _outcome(folder: Path) -> dict[str, Any]:
    rows = {name: rows_of(folder / name) for name in ("ledger.jsonl", "metrics.jsonl")}
    ends = {path.name: json.loads(path.read_text()) for path in (folder / "evaluations").glob("*.json")}
    return {**rows, **ends, "looks": _looks(folder), "weights": _weights(folder)}


def test_looking_on_the_way_moves_no_bit_and_writes_what_the_stage_would_leave(tmp_path: Path) -> None:
    plain = go(_recipe(tmp_path / "plain", AVERAGED))
    looked = go(_recipe(tmp_path / "looked", AVERAGED, "evaluate.every=2"))
    assert sorted(_looks(looked)) == ["sft@2", "sft@4"]
    assert _weights(looked) == _weights(plain)
    assert rows_of(looked / "metrics.jsonl") == rows_of(plain / "metrics.jsonl")
    # A run that ends there leaves what was judged there: the averages.
    short = go(_recipe(tmp_path / "short", AVERAGED, "stages.0.steps=4"))
    ended = json.loads((short / "evaluations" / "sft.json").read_text())
    assert _looks(looked)["sft@4"]["clips"] == ended["clips"]


@pytest.mark.parametrize("moment", ["sft 2", "evaluate sft (clips) 8", "sft 3", "grpo 1"])
@pytest.mark.parametrize("deed", [die, interrupt])
def test_an_interrupted_run_has_the_same_looks(
    tmp_path: Path, in_child: InChild, moment: str, deed: Callable[[], None]
) -> None:
    asked = ("evaluate.every=2", "evaluate.best=level", "run.save_every=3")
    whole = go(_recipe(tmp_path / "whole", *asked, stages=2))

    def work() -> None:
        try:
            go(_recipe(tmp_path, *asked, stages=2), Watcher(moment, deed))
        except driver.Interrupted:
            return
        raise AssertionError("it was not interrupted")

    assert in_child(work) == (-signal.SIGKILL if deed is die else 0)
    assert _outcome(go(_recipe(tmp_path, *asked, stages=2), resume=True)) == _outcome(whole)


def test_the_best_weights_are_what_the_stage_leaves_and_what_its_gate_judges(tmp_path: Path) -> None:
    gate = 'stages.0.gate={"targets": ["level"]}'
    folder = go(_recipe(tmp_path, "evaluate.every=1", "evaluate.best=level", gate))
    levels = {name: look["measures"]["level"]["mean"] for name, look in _looks(folder).items()}
    assert sorted(levels) == [f"sft@{n}" for n in range(1, 6)]
    best = max(levels, key=lambda name: levels[name])
    assert best != "sft@5"  # SFT on darker data makes it worse
    (row,) = rows_of(folder / "ledger.jsonl")
    assert row["best"] == {"measure": "level", "step": int(best.partition("@")[2]), "value": levels[best]}
    left = json.loads((folder / "evaluations" / "sft.json").read_text())
    assert left["clips"] == _looks(folder)[best]["clips"]
    assert row["gate"]["targets"][0]["after"] == levels[best]


def test_a_stage_that_gets_better_leaves_its_last_weights(tmp_path: Path) -> None:
    brighter = "stages.0.dataset.mean=1.0"
    best = go(_recipe(tmp_path / "best", brighter, "evaluate.every=2", "evaluate.best=level"))
    assert _weights(best) == _weights(go(_recipe(tmp_path / "plain", brighter)))
    assert rows_of(best / "ledger.jsonl")[0]["best"]["step"] == 5


def test_a_run_that_is_extended_has_the_looks_of_the_longer_one(tmp_path: Path) -> None:
    asked = ("evaluate.every=2", "evaluate.best=level", "stages.0.dataset.mean=1.0")
    longer = go(_recipe(tmp_path / "longer", *asked, "stages.0.steps=8"))
    folder = go(_recipe(tmp_path, *asked))
    assert "sft@5" in _looks(folder)
    go(_recipe(tmp_path, *asked, "stages.0.steps=8"), resume=True)
    assert _outcome(folder) == _outcome(longer)


def test_a_changed_look_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(driver.Interrupted):
        go(_recipe(tmp_path, "evaluate.every=2"), Watcher("sft 4", interrupt))
    path = tmp_path / "toy" / "evaluations" / "steps" / "sft@2.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(Exception, match=r"steps/sft@2\.json' is not the evaluation that was written"):
        go(_recipe(tmp_path, "evaluate.every=2"), resume=True)


def test_a_stage_called_like_a_look_shares_no_file_with_it(tmp_path: Path) -> None:
    folder = go(_recipe(tmp_path, "evaluate.every=2", "stages.0.label=sft", "stages.1.label=sft@2", stages=2))
    run = load.load(folder)
    assert list(run.evaluations) == ["base", "sft", "sft@2"]
    assert sorted(_looks(folder)) == ["sft@2", "sft@2@2", "sft@2@4", "sft@4"]


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        (
            'evaluate.best="level"',
            r"evaluate: best is 'level', but nothing is judged on the way; give every, such as 20",
        ),
        ("evaluate.every=-1", r"evaluate\.every"),
    ],
)
def test_cadences_that_make_no_sense_are_refused(tmp_path: Path, assignment: str, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        configs.validate(driver.Recipe, configs.override(tree_of(tmp_path), [assignment]))


def test_the_best_by_what_nothing_measures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"^evaluate\.best: nothing measures 'speed'; measured: level\.$"):
        driver.check(_recipe(tmp_path, "evaluate.every=2", "evaluate.best=speed"))
