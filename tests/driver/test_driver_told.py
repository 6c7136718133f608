"""What a run tells: events, run.json, and the samples that its stages keep."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.driver.toys import InChild, Watcher, die, go, interrupt, recipe_in, tree_of

from reelign import driver, records
from reelign.events import Event
from reelign.report import load
from reelign.runtime.learner import Learner

STAGE = {"name": "tests.parts.sampling_stage:build", "label": "look"}


class Keeping:
    """A sink that keeps what it is told, and run.json as it was then."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.events, self.states, self.closed = folder, [], [], 0

    def send(self, event: Event) -> None:
        self.events.append(event)
        self.states.append(_status(self.folder))

    def close(self) -> None:
        self.closed += 1


def _status(folder: Path) -> records.Status | None:
    path = folder / "run.json"
    return records.Status.read(json.loads(path.read_text()), "run.json") if path.exists() else None


def _sampling(root: Path, **changes: Any) -> driver.Recipe:
    return recipe_in(root, "run.save_every=3", stages=[STAGE], evaluate=None, **changes)


def test_a_run_from_python_tells_its_sinks_and_touches_no_signal(tmp_path: Path) -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    class Looking(Keeping):
        def send(self, event: Event) -> None:
            seen.append(signal.getsignal(signal.SIGINT))

    keeping = Keeping(tmp_path / "toy")
    driver.run(recipe_in(tmp_path), [Looking(tmp_path), keeping])
    assert set(seen) == {before}
    assert keeping.closed == 1
    kinds = [event.kind for event in keeping.events]
    assert kinds.count("step") == 16
    assert kinds.count("stage") == kinds.count("gate") == 3
    grpo = [event for event in keeping.events if event.kind == "step" and event.stage == "grpo"]
    assert [(event.step, event.of) for event in grpo] == [(n, 6) for n in range(1, 7)]
    assert "online/reward" in grpo[0].data
    assert [event.at for event in keeping.events] == sorted(event.at for event in keeping.events)


def test_ctrl_c_in_a_run_that_hears_no_signals_stops_it_at_once(tmp_path: Path) -> None:
    with pytest.raises(driver.Interrupted, match="stopped at once; go on from the last checkpoint"):
        driver.run(recipe_in(tmp_path), [Watcher("grpo 3", interrupt)])
    assert _status(tmp_path / "toy").phase == "stopped"  # type: ignore[union-attr]


def test_run_json_says_where_the_run_stands(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "toy")
    folder = driver.run(recipe_in(tmp_path), [keeping])
    # A sink is told after run.json has been written, or before: what it says is of this or the moment before.
    phases = [state.phase for state in keeping.states if state]
    assert {"checking", "evaluating", "saving", "training", "exporting"} <= set(phases)
    assert all(state.pid == os.getpid() for state in keeping.states if state)
    last = _status(folder)
    assert last is not None
    assert (last.phase, last.finished) == ("done", last.updated)


@pytest.mark.parametrize(
    ("moment", "phase"), [("sft 3", "training"), ("evaluate sft (clips) 8", "evaluating")], ids=["train", "judge"]
)
def test_a_killed_run_says_what_it_was_at(tmp_path: Path, in_child: InChild, moment: str, phase: str) -> None:
    assert in_child(lambda: go(recipe_in(tmp_path), Watcher(moment, die))) == -signal.SIGKILL
    status = _status(tmp_path / "toy")
    assert status is not None
    assert (status.phase, status.stage, status.finished) == (phase, "sft", None)
    with pytest.raises(ProcessLookupError):
        os.kill(status.pid, 0)


def test_a_run_that_fails_says_so_and_one_that_cannot_write_it_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="outside its scale"):
        go(recipe_in(tmp_path, "stages.1.rewards.0.limit=0.001"))
    assert _status(tmp_path / "toy").phase == "failed"  # type: ignore[union-attr]
    (tmp_path / "other" / "toy" / "run.json").mkdir(parents=True)
    assert (go(recipe_in(tmp_path / "other")) / "final").is_dir()


def test_a_run_that_breaks_in_a_way_that_nobody_thought_of_says_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def update(self: Learner, *args: Any) -> dict[str, float]:
        raise ZeroDivisionError("no way")

    monkeypatch.setattr(Learner, "update", update)
    with pytest.raises(ZeroDivisionError):
        driver.run(recipe_in(tmp_path))
    status = _status(tmp_path / "toy")
    assert status is not None
    assert (status.phase, status.why) == ("failed", "ZeroDivisionError: no way")


def test_samples_that_a_stage_keeps_are_written_and_told_and_survive_a_kill(tmp_path: Path, in_child: InChild) -> None:
    keeping = Keeping(tmp_path / "whole")
    folder = driver.run(_sampling(tmp_path / "whole"), [keeping])
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["index"], row["step"], row["rewards"]) for row in rows] == [
        ("look", 0, 0, {"linear": 0.0}),
        ("look", 0, 2, {"linear": 0.5}),
    ]
    assert [event.data["step"] for event in keeping.events if event.kind == "sample"] == [0, 2]
    assert in_child(lambda: go(_sampling(tmp_path), Watcher("look 3", die))) == -signal.SIGKILL
    go(_sampling(tmp_path), resume=True)
    assert (tmp_path / "toy" / "samples.jsonl").read_bytes() == (folder / "samples.jsonl").read_bytes()
    assert [sample.step for sample in load.load(folder).samples] == [0, 2]


def test_the_ledger_counts_forward_units_as_a_hand_count_does(tmp_path: Path) -> None:
    first = tree_of(tmp_path)["stages"][0]
    first.pop("gate")
    folder = go(recipe_in(tmp_path, stages=[first], evaluate=None))
    (row,) = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert row["forwards"] == 5 * 8 * 3  # steps of so many clips, with a gradient
