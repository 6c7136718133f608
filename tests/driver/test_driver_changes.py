"""What a resumed run hangs on: other data, base weights or rewards are refused or noted; moves are harmless."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.driver.toys import Watcher, go, interrupt, outcome_of, recipe_in, rows_of, tree_of
from tests.parts import gaussian_data, linear_reward, mean_level

import reelign
from reelign import driver
from reelign.errors import BadCheckpoint, BadConfig
from reelign.models import gaussian

Whole = tuple[Path, list[str]]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the parts of the test's runs say of themselves; a test changes it between two starts."""
    now: dict[str, Any] = {"base": "b" * 64, "data": {"prompts": 8, "sha256": "d" * 64}}
    monkeypatch.setattr(gaussian.Gaussian, "identity", property(lambda self: now["base"]))
    monkeypatch.setattr(gaussian_data.GaussianData, "identity", lambda self: now["data"], raising=False)
    return now


@pytest.fixture
def root(tmp_path: Path, world: dict[str, Any]) -> Path:
    """Of a run in that world, stopped in its second stage."""
    with pytest.raises(driver.Interrupted):
        go(recipe_in(tmp_path), Watcher("grpo 3", interrupt))
    return tmp_path


def _resume(root: Path, *assignments: str, accept: bool = False) -> tuple[Path, list[str]]:
    watcher = Watcher()
    return go(recipe_in(root, *assignments), watcher, resume=True, accept_changes=accept), watcher.said


def test_in_the_same_world_a_run_goes_on_without_a_word(whole: Whole, root: Path) -> None:
    folder, said = _resume(root)
    assert outcome_of(folder) == outcome_of(whole[0])
    assert [s.partition(":")[0] for s in said] == ["grpo", "dpo"]


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "base": ({"base": "c" * 64}, r"the base weights \(bbbbbbbbbbbb then, cccccccccccc now\)"),
    "fewer": ({"data": {"prompts": 7, "sha256": "e"}}, r"the data of evaluate\.dataset \(prompts 8 then, 7 now\)"),
    "others": (
        {"data": {"prompts": 8, "sha256": "e" * 64}},
        r"the data of stages\.1\.dataset \(sha256 dddddddddddd then, eeeeeeeeeeee now\)",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_world_is_refused_with_what_changed(root: Path, world: dict[str, Any], what: str) -> None:
    change, sentence = CHANGES[what]
    before = (root / "toy" / "metrics.jsonl").read_bytes()
    kept = dict(world)
    world.update(change)
    with pytest.raises(BadCheckpoint, match=rf"has changed since .*: .*{sentence}.*; bring it back, or go on all the"):
        _resume(root)
    assert (root / "toy" / "metrics.jsonl").read_bytes() == before
    world.update(kept)
    assert _resume(root)


def test_data_of_a_finished_stage_may_change(whole: Whole, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only the first stage's data has another mean.
    changed = lambda self: {"prompts": 3 if self.config.mean else 8, "sha256": "d" * 64}  # noqa: E731
    monkeypatch.setattr(gaussian_data.GaussianData, "identity", changed)
    assert outcome_of(_resume(root)[0]) == outcome_of(whole[0])


def test_accepted_changes_are_noted_in_the_ledger(root: Path, world: dict[str, Any]) -> None:
    world.update(CHANGES["base"][0])
    folder, said = _resume(root, accept=True)
    note = "from step 3 with changes: the base weights (bbbbbbbbbbbb then, cccccccccccc now)"
    assert [row["note"] for row in rows_of(folder / "ledger.jsonl")] == ["", note, ""]
    assert f"step 3 of stage grpo goes on {note}." in said
    # From then on it is this world that counts.
    assert (
        json.loads((folder / "checkpoints" / "dpo-end" / "state.json").read_text())["position"]["world"]["base"]
        == "c" * 64
    )


def test_another_version_of_a_reward_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_reward.Config, "version", "2")
    name = "tests.parts.linear_reward:build"
    with pytest.raises(BadCheckpoint, match=rf"the reward {name} \(version 1 then, 2 now\); bring it back"):
        _resume(root)
    folder, _ = _resume(root, accept=True)
    assert (
        f"from step 3 with changes: the reward {name} (version 1 then, 2 now)"
        in rows_of(folder / "ledger.jsonl")[1]["note"]
    )


def test_another_version_of_a_metric_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A gate would compare two measures that only have their name in common.
    monkeypatch.setattr(mean_level.Config, "version", "2", raising=False)
    with pytest.raises(BadCheckpoint, match=r"the metric level \(version [0-9a-f]{12} then, 2 now\); bring it back"):
        _resume(root)
    folder, _ = _resume(root, accept=True)
    rows = rows_of(folder / "ledger.jsonl")
    assert "with changes: the metric level (version" in rows[1]["note"]
    before, after = (json.loads((folder / "evaluations" / f"{n}.json").read_text()) for n in ("base", "dpo"))
    assert before["measures"]["level"]["version"] != after["measures"]["level"]["version"] == "2"


def test_data_may_move(tmp_path: Path) -> None:
    def recipe(root: str, place: str) -> driver.Recipe:
        folder = tmp_path / place
        stages = tree_of(tmp_path / root)["stages"]
        stages[1]["dataset"] = {"name": "prompt_file", "path": str(folder / "prompts.txt")}
        evaluate = tree_of(tmp_path)["evaluate"] | {
            "dataset": {"name": "prompt_file", "path": str(folder / "held.txt")}
        }
        return recipe_in(tmp_path / root, stages=stages, evaluate=evaluate)

    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "prompts.txt").write_text("".join(f"prompt {i}\n" for i in range(8)))
    (first / "held.txt").write_text("".join(f"held-out {i}\n" for i in range(8)))
    whole = go(recipe("whole", "first"), Watcher())
    with pytest.raises(driver.Interrupted):
        go(recipe("own", "first"), Watcher("grpo 3", interrupt))
    first.rename(second)
    watcher = Watcher()
    folder = go(recipe("own", "second"), watcher, resume=True)
    ended, other = outcome_of(folder), outcome_of(whole)
    assert all(ended[kind] == other[kind] for kind in ("final", "metrics", "evaluations"))  # the ledger names the place
    assert not [sentence for sentence in watcher.said if "changes" in sentence]
    config = json.loads((folder / "config.json").read_text())["config"]
    assert config["evaluate"]["dataset"]["path"] == str(second / "held.txt")


def test_data_of_another_place_must_be_the_same(tmp_path: Path) -> None:
    def recipe(place: str) -> driver.Recipe:
        (tmp_path / place).write_text("".join(f"prompt {place} {i}\n" for i in range(8)))
        stages = tree_of(tmp_path)["stages"]
        stages[1]["dataset"] = {"name": "prompt_file", "path": str(tmp_path / place)}
        return recipe_in(tmp_path, stages=stages)

    with pytest.raises(driver.Interrupted):
        go(recipe("a.txt"), Watcher("grpo 3", interrupt))
    with pytest.raises(BadCheckpoint, match=r"the data of stages\.1\.dataset \(sha256 \w+ then, \w+ now\)"):
        go(recipe("b.txt"), Watcher(), resume=True)


def test_an_identity_that_is_no_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian.Gaussian, "identity", lambda self: "base", raising=False)
    with pytest.raises(BadConfig, match=r"^the model 'gaussian' has an `identity` that is no text; make it a property"):
        go(recipe_in(tmp_path), Watcher())


def test_what_has_measured_for_the_last_time_may_change(
    whole: Whole, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mean_level.Config, "version", "2", raising=False)
    for made in (finished / "toy" / "final", finished / "toy" / "final.json"):
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    folder, _ = _resume(finished)
    assert outcome_of(folder) == outcome_of(whole[0])


def test_a_dataset_that_says_nothing_ties_a_run_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(gaussian_data.GaussianData, "identity", raising=False)
    with pytest.raises(driver.Interrupted):
        go(recipe_in(tmp_path), Watcher("grpo 3", interrupt))
    assert _resume(tmp_path)


def test_another_version_goes_on_with_a_line(whole: Whole, again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = reelign.__version__
    monkeypatch.setattr(reelign, "__version__", "99.0")
    folder, said = _resume(again)
    line = f"going on with reelign {now} then, 99.0 now; from here on the bits may differ from an uninterrupted run's."
    assert said[0] == line
    assert outcome_of(folder) == outcome_of(whole[0])


def test_other_threads_go_on_with_a_line(again: Path) -> None:
    before = torch.get_num_threads()
    try:
        _, said = _resume(again, "runtime.threads=2")
    finally:
        torch.set_num_threads(before)
    assert said[0].startswith("going on with threads 1 then, 2 now;")


@pytest.mark.parametrize(
    "assignment", ["run.save_every=1", "run.name=moved", "runtime.device=cpu", "runtime.threads=1"]
)
def test_what_changes_no_bit_goes_on_without_a_word(whole: Whole, again: Path, assignment: str) -> None:
    if assignment.startswith("run.name"):
        (again / "toy").rename(again / "moved")
    folder, said = _resume(again, assignment)
    assert outcome_of(folder) == outcome_of(whole[0])
    assert not [sentence for sentence in said if "going on" in sentence]


def test_a_finished_run_can_move(whole: Whole, finished: Path) -> None:
    moved = shutil.move(finished, finished.with_name("disk2"))
    folder, said = _resume(moved, "run.save_every=1", "runtime.threads=1")
    assert len(said) == 1
    assert " is finished already; to train on, " in said[0]
    assert outcome_of(folder) == outcome_of(whole[0])


def test_a_changed_recipe_is_still_refused(again: Path) -> None:
    for assignment, change in (
        ("run.seed=4", r"run\.seed: 3 then, 4 now"),
        ("evaluate.seed=4", r"evaluate\.seed: 0 then, 4 now"),
        ("stages.0.steps=6", r"stages\.0\.steps: 5 then, 6 now"),
        ("stages.2.steps=4", r"stages\.2\.steps: 5 then, 4 now"),
        (f"stages.1.label={'q' * 80}", r"stages\.1\.label: '' then, 'q{80}' now"),
    ):
        with pytest.raises(BadConfig, match=rf"other settings \({change}\); resume with the same recipe"):
            _resume(again, assignment)
