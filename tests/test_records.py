"""Records: what is written reads back, older forms read on, newer ones are named, and no number is lost on the way."""

import json
import math
from typing import Any

import pytest

from reelign import __version__, records
from reelign.errors import BadData

CLIP = {"prompt": "a circle", "prompt_id": 3, "member": 1, "seed": 7, "measures": {"right": 1.0, "sharp": math.inf}}
SUMMARY = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 2}


def _evaluation(**changes: Any) -> dict[str, Any]:
    return {"label": "sft", "measures": {"right": SUMMARY}, "clips": [CLIP], **changes}


def _written(record: records.Record) -> Any:
    """As a reader gets it from the file."""
    return json.loads(json.dumps(record.dump()))


def test_what_is_written_says_its_form_and_who_wrote_it_and_reads_back() -> None:
    evaluation = records.Evaluation.read(_evaluation(), "a file")
    row = _written(evaluation)
    assert (row["schema"], row["reelign"]) == (records.Evaluation.SCHEMA, __version__)
    assert records.Evaluation.read(row, "a file") == evaluation


def test_an_infinite_measure_is_counted_and_left_out_also_when_it_is_read_again() -> None:
    evaluation = records.Evaluation.read(_evaluation(), "a file")
    again = records.Evaluation.read(_written(evaluation), "a file")
    for each in (evaluation, again):
        assert dict(each.infinite) == {"sharp": 1}
        assert each.clips[0].measures == {"right": 1.0, "sharp": None}


def test_a_form_that_only_a_later_version_reads_is_named_with_who_wrote_it() -> None:
    later = _evaluation(schema=records.Evaluation.SCHEMA + 1, reelign="9.1.0")
    told = (
        rf"^runs/x has schema 3, written by Reelign 9\.1\.0, but this one, {__version__}, reads schemas up to 2; update"
    )
    with pytest.raises(BadData, match=told):
        records.Evaluation.read(later, "runs/x")


def test_files_from_before_forms_were_written_and_with_keys_of_later_ones_are_read() -> None:
    assert records.Evaluation.read(_evaluation(lens="wide"), "a file").label == "sft"
    assert records.Stage.read({"stage": "sft", "frames": 40}, "a row").model_dump()["frames"] == 40


def test_what_is_missing_is_said_with_its_place() -> None:
    with pytest.raises(BadData, match=r"^a file: clips\.0\.seed: field required; was it written by another version\?$"):
        records.Evaluation.read(_evaluation(clips=[{k: v for k, v in CLIP.items() if k != "seed"}]), "a file")


def test_metrics_stand_beside_the_rest_of_a_row_and_keep_their_last_bit() -> None:
    metrics = {"online/reward": 0.1 + 0.2, "loss": math.inf, "kl": 3.0}
    step = records.Step(stage="grpo", index=1, step=4, wall_s=0.5, forwards=96, metrics=metrics)
    row = _written(step)
    assert row["online/reward"] == 0.1 + 0.2
    assert "metrics" not in row
    assert records.Step.read(row, "a row") == step


def test_only_numbers_of_a_row_are_metrics_and_one_that_no_float_holds_is_infinite() -> None:
    row = {"stage": "sft", "step": 0, "a": 1, "b": True, "c": "x", "d": None, "e": 2**2000, "schema": 1, "reelign": "1"}
    assert records.Step.read(row, "a row").metrics == {"a": 1.0, "e": math.inf}


@pytest.mark.parametrize("step", [-1, 2**63, None, "x"])
def test_a_row_without_a_step_is_refused(step: object) -> None:
    with pytest.raises(BadData, match=r"^a row: step: "):
        records.Step.read({"stage": "sft", "step": step}, "a row")


@pytest.mark.parametrize(("higher", "means"), [(True, (0.5, 0.4, 0.6)), (False, (0.5, 0.6, 0.4))])
def test_the_best_is_better_in_the_measures_own_direction(higher: bool, means: tuple[float, ...]) -> None:
    first, worse, better = (
        records.Evaluation.read(_evaluation(measures={"m": {**SUMMARY, "mean": m, "higher_is_better": higher}}), "")
        for m in means
    )
    best = records.Best(measure="m", step=2, value=means[0])
    assert first.better_than(None, "m")
    assert not first.better_than(best, "m")
    assert not worse.better_than(best, "m")
    assert better.better_than(best, "m")


@pytest.mark.parametrize("mean", [None, math.nan, math.inf])
def test_a_measure_that_applies_to_nothing_is_never_the_best(mean: float | None) -> None:
    found = records.Evaluation.read(_evaluation(measures={"right": {**SUMMARY, "mean": mean}}), "")
    assert not found.better_than(None, "right")
    assert not found.better_than(None, "other")


def test_the_time_left_is_what_is_left_at_the_pace_so_far() -> None:
    status = records.Status(pid=1, host="a", phase="training", step=6, of=10, started=0, since=0, updated=9, each_s=1.5)
    assert status.left_s == 6.0
    assert status.model_copy(update={"each_s": None}).left_s is None
