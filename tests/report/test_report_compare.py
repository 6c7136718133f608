"""Two runs: better, worse, no difference."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic_run

from reelign.errors import UserError
from reelign.report.compare import compare

ABOUT = {
    "up": {"higher_is_better": True, "description": "should rise"},
    "down": {"higher_is_better": False, "description": "should fall"},
    "same": {"higher_is_better": True, "description": "should stay"},
    "gamed": {"higher_is_better": True, "trained_on": True},
}
Value = Callable[[str, random.Random], float]


def small_run(folder: Path, share: dict[str, float], *, offset: int = 0, prompts: int = 60, seed: int = 0) -> Path:
    """A run whose only evaluation has the given shares; equal luck on equal prompts makes pairs alike."""
    synthetic_run.write_config(folder, ())
    clips = []
    for p in range(offset, offset + prompts):
        for m in range(2):
            luck = random.Random(p * 10 + m)
            measures = {name: float(luck.random() < share[name]) for name in ABOUT}
            clips.append(
                {
                    "prompt": f"prompt {p}",
                    "prompt_id": p,
                    "member": m,
                    "seed": seed + p,
                    "measures": measures,
                    "video": None,
                }
            )
    synthetic_run.write_evaluation(folder, synthetic_run.evaluation("base", clips, ABOUT))
    return folder


A = {"up": 0.4, "down": 0.4, "same": 0.5, "gamed": 0.1}
B = {"up": 0.7, "down": 0.7, "same": 0.5, "gamed": 0.9}


def test_verdicts_follow_the_direction_of_each_measure(tmp_path: Path):
    found = compare(small_run(tmp_path / "a", A), small_run(tmp_path / "b", B))
    assert {m.measure: m.verdict for m in found.measures} == {"up": "better", "down": "worse", "same": "no difference"}
    assert found.paired
    assert (found.run_a, found.run_b) == ("a", "b")
    back = compare(tmp_path / "b", tmp_path / "a")
    assert {m.measure: m.verdict for m in back.measures} == {"up": "worse", "down": "better", "same": "no difference"}


def test_numbers_are_the_means_over_pairs(tmp_path: Path):
    found = compare(small_run(tmp_path / "a", A), small_run(tmp_path / "b", B))
    up = found.measures[0]
    values = {
        name: [
            c["measures"]["up"] for c in json.loads((tmp_path / name / "evaluations/base.json").read_text())["clips"]
        ]
        for name in ("a", "b")
    }
    assert up.n == 120
    assert up.a == pytest.approx(sum(values["a"]) / 120)
    assert up.b == pytest.approx(sum(values["b"]) / 120)
    assert up.difference == pytest.approx(up.b - up.a)
    assert up.low < up.difference < up.high


def test_a_measure_that_either_trained_on_is_left_out(tmp_path: Path):
    found = compare(small_run(tmp_path / "a", A), small_run(tmp_path / "b", B))
    assert "gamed" not in {m.measure for m in found.measures}
    assert any("gamed is left out: A and B trained on it" in note for note in found.notes)


def test_other_prompts_are_compared_as_independent_means_and_less_sharply(tmp_path: Path):
    a = small_run(tmp_path / "a", A)
    paired = compare(a, small_run(tmp_path / "b", B)).measures[0]
    apart = compare(a, small_run(tmp_path / "c", B, offset=1000))
    assert not apart.paired
    assert "different prompts" in apart.notes[0]
    assert apart.measures[0].high - apart.measures[0].low > paired.high - paired.low
    assert apart.measures[0].verdict == "better"


def test_few_prompts_are_no_evidence(tmp_path: Path):
    found = compare(small_run(tmp_path / "a", A, prompts=4), small_run(tmp_path / "b", {**B, "up": 1.0}, prompts=4))
    assert {m.verdict for m in found.measures} == {"no difference"}


def test_other_noise_is_said(tmp_path: Path):
    found = compare(small_run(tmp_path / "a", A), small_run(tmp_path / "b", B, seed=7))
    assert found.paired
    assert any("different noise" in note for note in found.notes)


def test_a_comparison_prints_and_serialises(tmp_path: Path):
    found = compare(small_run(tmp_path / "a", A), small_run(tmp_path / "b", B))
    text = found.table()
    assert "B is" in text
    assert "down (lower is better)" in text
    assert "no difference" in text
    assert json.loads(json.dumps(found.to_dict()))["measures"][0]["verdict"] == "better"


def test_runs_without_evaluations_or_common_measures_are_refused(tmp_path: Path):
    a = small_run(tmp_path / "a", A)
    synthetic_run.write_config(tmp_path / "empty", ())
    with pytest.raises(UserError, match="no evaluation yet"):
        compare(a, tmp_path / "empty")
    content = json.loads((small_run(tmp_path / "b", B) / "evaluations/base.json").read_text())
    content["measures"] = {"gamed": content["measures"]["gamed"]}
    synthetic_run.write_evaluation(tmp_path / "b", content)
    with pytest.raises(UserError, match="no held-out measure in common"):
        compare(a, tmp_path / "b")
