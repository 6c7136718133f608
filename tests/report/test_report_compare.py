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


def test_measures_of_different_versions_are_not_compared(tmp_path: Path):
    for name, shares in (("a", A), ("b", B)):
        folder = small_run(tmp_path / name, shares)
        file = folder / "evaluations" / "base.json"
        content = json.loads(file.read_text())
        content["measures"]["up"]["version"] = name
        content["measures"]["same"] |= {"version": "1"} if name == "a" else {}
        file.write_text(json.dumps(content))
    found = compare(tmp_path / "a", tmp_path / "b")
    assert [m.measure for m in found.measures] == ["down", "same"]
    assert any("left out, since the runs had different versions of what measures up." in note for note in found.notes)


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
    assert found.notes == ("left out, since A and B trained on gamed.",)


def test_other_prompts_are_compared_as_independent_means_and_less_sharply(tmp_path: Path):
    a = small_run(tmp_path / "a", A)
    paired = compare(a, small_run(tmp_path / "b", B)).measures[0]
    apart = compare(a, small_run(tmp_path / "c", B, offset=1000))
    assert not apart.paired
    assert "different prompts" in apart.notes[0]
    assert apart.measures[0].high - apart.measures[0].low > paired.high - paired.low
    assert apart.measures[0].verdict == "better"


def test_few_prompts_are_too_few_to_tell(tmp_path: Path):
    found = compare(small_run(tmp_path / "a", A, prompts=4), small_run(tmp_path / "b", {**B, "up": 1.0}, prompts=4))
    assert {m.verdict for m in found.measures} == {"too few prompts to tell"}
    apart = compare(tmp_path / "a", small_run(tmp_path / "c", B, prompts=4, offset=1000))
    assert {m.verdict for m in apart.measures} == {"too few prompts to tell"}
    assert "too few prompts to tell" in apart.table()


def test_other_noise_is_said(tmp_path: Path):
    found = compare(small_run(tmp_path / "a", A), small_run(tmp_path / "b", B, seed=7))
    assert found.paired
    assert any("different noise" in note for note in found.notes)


def test_a_comparison_prints_and_serialises(tmp_path: Path):
    found = compare(small_run(tmp_path / "a", A), small_run(tmp_path / "b", B))
    text = found.table()
    assert "verdict on B" in text
    assert "down (lower is better)" in text
    assert "no difference" in text
    assert json.loads(json.dumps(found.to_dict()))["measures"][0]["verdict"] == "better"


def test_one_reason_is_said_once_for_all_the_measures_it_leaves_out(tmp_path: Path):
    a, b = small_run(tmp_path / "a", A), small_run(tmp_path / "b", B)
    content = json.loads((a / "evaluations/base.json").read_text())
    for name in ("down", "same"):
        del content["measures"][name]
    synthetic_run.write_evaluation(a, content)
    assert compare(a, b).notes == (
        "left out, since A and B trained on gamed.",
        "left out, since A did not measure down and same.",
    )
    assert compare(b, a).notes[0] == "left out, since B did not measure down and same."


def test_an_unfinished_run_is_marked_with_what_it_has_still_to_do(make_run: Callable[..., Path]):
    finished, running = make_run("a", videos=0), make_run("b", stages=("sft",), videos=0)
    lines = [{"stage": "grpo", "index": 1, "step": step, "online/reward": 0.5} for step in range(12)]
    with (running / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in lines)
    found = compare(finished, running)
    assert (found.unfinished_a, found.unfinished_b) == (
        "",
        "GRPO (12 of 100 steps done) and DPO are still to come",
    )
    first, second = found.table().splitlines()[:2]
    assert first == "A: a, after DPO"
    assert second == "B: b, after SFT; unfinished: GRPO (12 of 100 steps done) and DPO are still to come"


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
