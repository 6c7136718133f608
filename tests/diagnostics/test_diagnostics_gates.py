"""Gates on synthetic evaluations: a target must rise beyond noise, and no slice may fall beyond noise."""

from typing import Any

import pytest
import torch

from reelign.core import rng
from reelign.diagnostics import gates
from reelign.stages._context import GateConfig

N, MEMBERS = 60, 2
COLORS, MOTIONS = ("red", "green", "blue"), ("left", "right")


def _evaluation(values: torch.Tensor, *, higher: bool = True, name: str = "level") -> dict[str, Any]:
    """`values` [prompts members], NaN where the measure does not apply."""
    clips = []
    for p, row in enumerate(values.tolist()):
        slices = {"color": COLORS[p % 3], "motion": MOTIONS[p % 2]}
        for m, value in enumerate(row):
            clips.append(
                {"prompt_id": p, "member": m, "slices": slices, "measures": {name: None if value != value else value}}
            )
    return {"measures": {name: {"mean": values.nanmean().item(), "higher_is_better": higher}}, "clips": clips}


def _noise(seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * rng.normal((N, MEMBERS), seed=seed)


def _judge(before: torch.Tensor, after: torch.Tensor, *, higher: bool = True, **gate: Any) -> dict[str, Any]:
    config = GateConfig.model_validate({"targets": ("level",), **gate})
    return gates.judge(_evaluation(before, higher=higher), _evaluation(after, higher=higher), config)


def test_a_target_that_rose_passes_and_the_sentence_says_from_where_to_where() -> None:
    before = _noise(1)
    found = _judge(before, before + 0.5 + _noise(2, 0.2))
    assert found["verdict"] == "passed"
    target = found["targets"][0]
    assert target["rose"]
    assert target["low"] < target["difference"] < target["high"]
    assert target["difference"] == pytest.approx(0.5, abs=0.1)
    assert found["sentence"] == f"rose: level {target['before']:.3f} to {target['after']:.3f}; no slice fell."


@pytest.mark.parametrize("shift", [0.0, -0.5])
def test_a_target_that_did_not_rise_beyond_noise_fails(shift: float) -> None:
    before = _noise(1)
    found = _judge(before, before + shift + _noise(4, 0.2))
    assert found["verdict"] == "failed"
    assert found["sentence"] == "no gain beyond noise in level. The weights that entered the stage are kept."


def test_for_a_measure_that_should_be_low_a_fall_is_a_gain() -> None:
    before = _noise(1)
    assert _judge(before, before - 0.5, higher=False)["verdict"] == "passed"
    assert _judge(before, before + 0.5, higher=False)["verdict"] == "failed"


def test_differences_are_paired_so_that_hard_prompts_do_not_hide_a_small_gain() -> None:
    before = 10 * _noise(1)
    assert _judge(before, before + 0.1 + _noise(2, 0.05))["verdict"] == "passed"


def test_whole_prompts_are_resampled_so_that_members_do_not_count_as_evidence() -> None:
    """A gain on 8 of 60 prompts is real or not by prompts; thirty copies of each would make any noise significant."""
    change = torch.zeros(N, 1)
    change[::8] = rng.normal((len(change[::8]), 1), seed=8)
    few = _judge(torch.zeros(N, 1), change)["targets"][0]
    many = _judge(torch.zeros(N, 30), change.expand(-1, 30))["targets"][0]
    assert many["high"] - many["low"] == pytest.approx(few["high"] - few["low"], rel=0.01)


def test_a_slice_that_fell_beyond_noise_fails_the_gate_by_name() -> None:
    before = _noise(1)
    after = before + 0.6 + _noise(2, 0.1)
    after[0::3] -= 1.2  # red
    found = _judge(before, after, guards=("level",))
    assert found["verdict"] == "failed"
    assert [row["slice"] for row in found["fallen_slices"]] == ["color=red"]
    assert found["fallen_slices"][0]["high"] < 0
    assert "worse beyond noise: level on color=red (-0." in found["sentence"]
    assert found["targets"][0]["rose"]


def test_a_measure_that_guards_nothing_may_fall_on_a_slice() -> None:
    before = _noise(1)
    after = before + 0.6
    after[0::3] -= 1.2
    assert _judge(before, after)["verdict"] == "passed"


def test_slices_with_too_few_clips_are_not_judged() -> None:
    before = _noise(1)
    after = before + 0.6
    after[0::3] -= 1.2
    assert _judge(before, after, guards=("level",), min_slice=41)["fallen_slices"] == []
    assert _judge(before, after, guards=("level",), min_slice=40)["fallen_slices"] != []


def test_many_slices_widen_the_interval_so_that_chance_does_not_fail_a_stage() -> None:
    """On pure noise, sixty slices without a correction would fail most gates; with it, one in twenty."""
    failed = 0
    config = GateConfig(targets=("level",), guards=("level",), min_slice=2)
    for trial in range(20):
        before, after = (
            _evaluation(rng.normal((N, MEMBERS), seed=rng.seed_for(trial, w))) for w in ("before", "after")
        )
        for evaluation in (before, after):
            for clip in evaluation["clips"]:
                clip["slices"] = {f"question {q}": str((clip["prompt_id"] >> q) % 2) for q in range(6)}
                clip["slices"] |= {f"shifted {q}": str((clip["prompt_id"] * 7 >> q) % 2) for q in range(6)}
        failed += bool(gates._fallen(before, after, config))
    assert failed <= 3


def test_clips_to_which_a_measure_does_not_apply_are_left_out() -> None:
    before = _noise(1)
    after = before + 0.5
    before[::4, 0] = float("nan")
    after[::5, 1] = float("nan")
    assert _judge(before, after)["targets"][0]["difference"] == pytest.approx(0.5, abs=1e-5)


def test_a_measure_that_applies_nowhere_is_no_gain() -> None:
    nowhere = torch.full((N, MEMBERS), float("nan"))
    found = _judge(nowhere, nowhere, guards=("level",))
    assert found["verdict"] == "failed"
    assert found["targets"][0]["rose"] is False


def test_a_stage_without_a_gate_is_skipped_with_its_reason() -> None:
    assert gates.skipped("because.") == {
        "verdict": "skipped",
        "sentence": "because.",
        "targets": [],
        "fallen_slices": [],
    }
