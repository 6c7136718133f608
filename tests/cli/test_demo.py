"""The demo: what it judges by is not what it trains on, and its whole chain runs, here in a few steps."""

import json
from collections.abc import Callable
from pathlib import Path

from reelign.cli import demo
from reelign.playground import corpora, grammar
from reelign.playground.scene import is_held_out

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
