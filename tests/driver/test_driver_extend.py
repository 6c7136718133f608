"""More steps for the last stage of a run: with its optimizer's state, to the bits of a run started with them."""

from pathlib import Path
from typing import Any

import pytest
from tests.driver.toys import InChild, Watcher, die, go, newest, outcome_of, recipe_in, rows_of, tree_of

from reelign.errors import BadCheckpoint, BadConfig

MORE = "stages.2.steps=9"


@pytest.fixture(scope="session")
def longer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run leaves behind if it is started with more steps."""
    return outcome_of(go(recipe_in(tmp_path_factory.mktemp("longer"), MORE), Watcher()))


def _resume(root: Path, *assignments: str, watcher: Watcher | None = None, **changes: Any) -> Path:
    return go(recipe_in(root, *assignments, **changes), watcher or Watcher(), resume=True)


def test_a_finished_run_is_extended_bit_by_bit(longer: dict[str, Any], finished: Path) -> None:
    watcher = Watcher()
    folder = _resume(finished, MORE, watcher=watcher)
    assert outcome_of(folder) == longer
    assert watcher.events[:2] == ["dpo was finished after 5 steps, and goes on to 9 as asked now.", "begin dpo 5/9"]
    assert not list(folder.glob("*aside*"))
    # Now it is a run of nine steps.
    with pytest.raises(BadConfig, match=r"stages\.2\.steps: 9 then, 5 now"):
        _resume(finished)
    assert outcome_of(_resume(finished, MORE)) == longer
    assert outcome_of(_resume(finished, "stages.2.steps=10"))["ledger"][2]["steps"] == 10


def test_an_unfinished_run_is_extended_bit_by_bit(longer: dict[str, Any], again: Path) -> None:
    assert outcome_of(_resume(again, MORE)) == longer


def test_rollouts_of_an_extension_are_those_of_the_longer_run(tmp_path: Path) -> None:
    stages = tree_of(tmp_path)["stages"][:2]
    stages[1]["method"] = {**stages[1]["method"], "modules": [{"name": "bpgo", "share": 0.0}]}
    go(recipe_in(tmp_path, stages=stages), Watcher())
    longer = go(recipe_in(tmp_path / "longer", "stages.1.steps=9", stages=stages), Watcher())
    assert outcome_of(_resume(tmp_path, "stages.1.steps=9", stages=stages)) == outcome_of(longer)


@pytest.mark.parametrize("moment", ["dpo 6", "dpo 7", "dpo 9", "evaluate dpo (clips) 8"])
def test_an_extension_that_is_killed_goes_on_to_the_same_bits(
    longer: dict[str, Any], finished: Path, in_child: InChild, moment: str
) -> None:
    assert in_child(lambda: _resume(finished, MORE, watcher=Watcher(moment, die))) < 0
    # Until the longer run is done, what the shorter one made stays.
    assert (finished / "toy" / "final" / "offsets.safetensors").exists()
    assert outcome_of(_resume(finished, MORE)) == longer


def test_a_damaged_step_of_an_extension_falls_back_to_the_end_of_the_run(
    longer: dict[str, Any], finished: Path, in_child: InChild
) -> None:
    assert in_child(lambda: _resume(finished, MORE, watcher=Watcher("dpo 7", die))) < 0
    assert newest(finished / "toy") == "dpo-00006"
    (finished / "toy" / "checkpoints" / "dpo-00006" / "learner.safetensors").write_bytes(b"")
    assert outcome_of(_resume(finished, MORE)) == longer


def test_a_run_whose_last_step_is_lost_cannot_be_extended(finished: Path) -> None:
    (finished / "toy" / "checkpoints" / "dpo-00005" / "learner.safetensors").write_bytes(b"")
    before = outcome_of(finished / "toy")
    with pytest.raises(BadCheckpoint, match=r"cannot be extended, as its last step is lost: .*dpo-00005.* is damaged"):
        _resume(finished, MORE)
    assert outcome_of(finished / "toy") == before
    assert outcome_of(_resume(finished)) == before  # it still is the run it was


def test_a_failed_gate_judges_again_after_more_steps(tmp_path: Path) -> None:
    stages = tree_of(tmp_path)["stages"][:1]
    folder = go(recipe_in(tmp_path, stages=stages), Watcher())
    assert rows_of(folder / "ledger.jsonl")[0]["gate"]["verdict"] == "failed"
    watcher = Watcher()
    _resume(tmp_path, "stages.0.steps=7", watcher=watcher, stages=stages)
    own = "it goes on from its own weights, which the gate judges again at the end."
    assert watcher.said[1] == f"sft had failed its gate after 5 steps; {own}"
    assert watcher.said[2].startswith("sft: failed")
    (row,) = rows_of(folder / "ledger.jsonl")
    assert row["steps"] == 7
    other = go(recipe_in(tmp_path / "other", "stages.0.steps=7", stages=stages), Watcher())
    assert outcome_of(folder) == outcome_of(other)
