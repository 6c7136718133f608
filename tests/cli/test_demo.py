"""The demo: what it judges by is not what it trains on, and its whole chain runs, here in a few steps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelign import finished
from reelign.cli import align
from reelign.playground import demo
from reelign.playground.world import corpora, grammar
from reelign.playground.world.scene import is_held_out

Call = Callable[..., tuple[int, str, str]]


def test_no_prompt_that_judges_means_what_a_training_caption_means() -> None:
    prompts = demo.judged_prompts(demo.JUDGED)
    judged = [grammar.parse(text) for text in prompts]
    shown = corpora.instruction(demo.CLIPS, demo.CLIPS_SEED).captions
    asked = corpora.prompts(demo.PROMPTS, demo.PROMPTS_SEED)
    trained = {grammar.parse(text) for text in (*shown, *asked)}
    assert len(prompts) == len(set(prompts)) == demo.JUDGED
    assert not trained & set(judged)
    assert [is_held_out(scene) for scene in judged[:6]] == [True, False] * 3
    assert sum(is_held_out(scene) for scene in judged) == demo.JUDGED // 2
    assert not any(is_held_out(scene) for scene in trained)


def test_the_whole_chain_runs_and_its_ratio_is_exactly_1(reelign: Call, tmp_path: Path) -> None:
    demo.write_data(tmp_path / "demo-data", clips=16, prompts=16, judged=4)
    small = {
        "runtime.threads": 1,
        "evaluate.videos": 2,
        "evaluate.members": 2,
        "stages.0.steps": 2,
        "stages.0.batch": 4,
        "stages.1.steps": 2,
        "stages.1.prompts": 2,
        "stages.1.group": 4,
        "stages.2.prompts": 8,
        "stages.2.tie": 0.0,
        "stages.3.steps": 2,
        "stages.3.batch": 2,
    }
    settings = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    code, out, err = reelign("demo", "--out", tmp_path, *settings)
    assert code == 0, err
    run = tmp_path / "demo"
    labels = ["base", "sft", "grpo", "dpo"]
    assert all((run / "evaluations" / f"{label}.json").exists() for label in labels)
    assert (run / "report.html").exists()
    assert str(run / "report.html") in out
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ratios = [row["online/max_abs_log_ratio"] for row in rows if "online/max_abs_log_ratio" in row]
    assert ratios == [0.0, 0.0]


def test_a_folder_may_be_spelled_in_any_way(reelign: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(demo, "write_data", lambda folder: None)
    monkeypatch.setattr(align, "finish", lambda tree, *_: made.append(tree))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    spelled = ("runs", "./runs", "runs/", f"{tmp_path}/runs", f"{tmp_path}/other/../runs", "~/runs")
    for out in spelled:
        assert reelign("demo", "--out", out)[0] == 0
    assert [tree["run"]["root"] for tree in made[:2]] == ["runs", "runs"]
    assert {finished.given(tree) for tree in made} == {finished.given(made[0])}
    assert made[0]["evaluate"]["dataset"]["path"] == f"{tmp_path}/runs/demo-data/held_out.jsonl"
    assert {json.dumps(tree["stages"]) for tree in made} == {json.dumps(made[0]["stages"])}
    assert reelign("demo", "--out", "2026", "--seed", 3)[0] == 0  # a path, though YAML would read a number
    assert made[-1]["run"] == {"name": "demo-3", "root": "2026", "seed": 3}
