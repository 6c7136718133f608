"""Evaluations on the way as curves, the step that a stage left, and samples as strips."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic_run

from reelign.report import curves, load, looks, page, stations, strips

Make = Callable[..., Path]


@pytest.fixture
def run(make_run: Make) -> Path:
    """One with two looks at GRPO, which start where SFT ended."""
    folder = make_run(videos=0)
    for step, share in ((40, 0.6), (80, 0.9)):
        content = json.loads((folder / "evaluations" / "grpo.json").read_text())
        content["measures"]["attributes_right"] |= {"mean": share, "low": share - 0.05, "high": share + 0.05}
        synthetic_run.write_evaluation(folder, {**content, "label": f"steps/grpo@{step}"})
    return folder


def _mean(folder: Path, label: str) -> float:
    return json.loads((folder / "evaluations" / f"{label}.json").read_text())["measures"]["attributes_right"]["mean"]


def test_a_curve_goes_from_what_entered_over_the_looks_to_what_was_left(run: Path) -> None:
    read = load.load(run)
    assert list(read.evaluations) == ["base", "sft", "grpo", "dpo"]
    levels = looks._levels(read, "grpo", "attributes_right")
    assert [step for step, *_ in levels] == [0, 40, 80, 120]
    assert [level for _, level, *_ in levels] == [_mean(run, "sft"), 0.6, 0.9, _mean(run, "grpo")]
    names = [chart.name for chart in looks.charts(read, "grpo")]
    assert "attributes right" in names
    assert looks.charts(read, "sft") == ()
    html = page.write(run).read_text()
    assert html.count("Held-out measures on the way") == 1


def test_a_stage_that_left_its_best_says_which_and_its_curve_ends_where_it_looked_last(run: Path) -> None:
    synthetic_run.change_ledger(run, "grpo", best={"measure": "attributes_right", "step": 80, "value": 0.9})
    read = load.load(run)
    assert [step for step, *_ in looks._levels(read, "grpo", "attributes_right")] == [0, 40, 80]
    assert [s.kept for s in stations.stations(read)] == ["", "", "left step 80, the best by attributes right", ""]
    assert "left step 80, the best by attributes right" in page.write(run).read_text()


def test_a_level_names_its_step_and_interval() -> None:
    svg = curves.level_chart([(0.0, 0.41, 0.3, 0.5), (40.0, 0.6, 0.55, 0.65)], name="right", rate=True)
    assert "<title>step 40: 60\N{NO-BREAK SPACE}% [55, 65]</title>" in svg
    assert "starts at 41\N{NO-BREAK SPACE}%, ends at 60\N{NO-BREAK SPACE}%" in svg


def _sample(folder: Path, step: int, **changes: Any) -> dict[str, Any]:
    name = f"samples/grpo/step-{step:05d}.mp4"
    synthetic_run.write_video(folder / name, synthetic_run.square_video(step, 0, "grpo"))
    row = {"stage": "grpo", "index": 1, "step": step, "prompt": "A red circle.", "prompt_id": 1, "member": 0, "seed": 5}
    return row | {"rewards": {"motion": 0.25 * step, "sharpness": None}, "video": name} | changes


def _keep(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_samples_are_shown_by_step_with_their_rewards(run: Path) -> None:
    _keep(run, [_sample(run, 0), _sample(run, 0, member=1), _sample(run, 2)])
    (strip,) = strips.strips(load.load(run))
    assert [(step, len(frames)) for step, frames in strip.steps] == [(0, 2), (2, 1)]
    _, clip = strip.steps[1][1][0]
    assert (clip.width, clip.height) == (32, 32)
    assert [(badge.name, badge.value, badge.tone) for badge in clip.badges] == [
        ("motion", "0.500", "plain"),
        ("sharpness", "–", "none"),
    ]
    html = page.write(run).read_text()
    assert html.count("data-strip") == 3 + 1  # and once in the script
    assert '<p class="num">step 3</p>' in html


def test_a_strip_too_large_for_a_page_keeps_some_steps_and_the_ends(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _keep(run, [_sample(run, step) for step in range(10)])
    one = (run / "samples" / "grpo" / "step-00000.mp4").stat().st_size
    monkeypatch.setattr(strips, "EMBEDDED_MIB", 4.5 * one / 2**20)
    (strip,) = strips.strips(load.load(run))
    assert [step for step, _ in strip.steps] == [0, 3, 6, 9]
    assert strip.left_out == 6
    assert "Of 6 further steps samples are in" in page.write(run).read_text()


def test_a_sample_must_lie_in_the_run_folder(run: Path) -> None:
    _keep(run, [_sample(run, 0, video="../../outside.mp4")])
    with pytest.raises(Exception, match="lies outside the run folder"):
        page.write(run)


def test_a_sample_whose_video_is_gone_is_said(run: Path) -> None:
    _keep(run, [_sample(run, 0, video="samples/grpo/gone.mp4")])
    (strip,) = strips.strips(load.load(run))
    assert strip.steps[0][1][0][1].absent == "video file missing"
