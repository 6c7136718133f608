"""What stands near the top: the model, the machine, the cost of each stage, and how to read it all."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reelign.report import caveats, facts, load, page, tables

Make = Callable[..., Path]


def change_config(folder: Path, **more: object) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | more))


def change_ledger(folder: Path, stage: str, **more: object) -> None:
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    rows = [row | more if row["stage"] == stage else row for row in rows]
    (folder / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def steps(folder: Path) -> dict[str, facts.Step]:
    return {step.label: step for step in facts.steps(load.load(folder))}


def target(**more: object) -> dict[str, object]:
    row = {"metric": "attributes_right", "before": 0.4, "after": 0.42, "difference": 0.02, "low": -0.01, "high": 0.05}
    return row | {"rose": False} | more


def test_the_model_the_machine_and_the_command_are_told(make_run: Make):
    folder = make_run(videos=0)
    told = {fact.name: (fact.text, fact.more) for fact in facts.facts(load.load(folder))}
    assert told["Base model"] == ("packaged:tiny (wan)", "an adapter (LoRA, rank 16) was trained")
    assert told["Judged on"] == ("24 prompts, 2 clips each", "")
    assert told["Command"] == ("reelign align recipe.yaml", "with the recipe at the end of this page; seed 0")
    assert "Device" not in told
    change_config(folder, command=["reelign", "align", "my recipe.yaml"], device="cuda", torch="2.13", notes=["a note"])
    told = {fact.name: (fact.text, fact.more) for fact in facts.facts(load.load(folder))}
    assert told["Command"] == ("reelign align 'my recipe.yaml'", "seed 0")
    assert told["Device"] == ("cuda", "PyTorch 2.13, Reelign 0.1.0")
    change_ledger(folder, "dpo", machine={"device": "cuda (NVIDIA H200)", "threads": "1", "torch": "2.14"})
    told = {fact.name: (fact.text, fact.more) for fact in facts.facts(load.load(folder))}
    assert told["Device"] == ("cuda (NVIDIA H200)", "1 CPU thread, PyTorch 2.14, Reelign 0.1.0")


def test_a_stage_under_way_says_how_far_it_is(make_run: Make):
    folder = make_run(stages=("sft",), videos=0)
    assert [step.what for step in steps(folder).values()][2:] == ["still to come", "still to come"]
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"stage": "grpo", "step": k, "online/reward": 0.1}) + "\n" for k in range(12))
    assert [step.what for step in steps(folder).values()][2:] == ["12 of 100 steps done", "still to come"]
    content = json.loads((folder / "config.json").read_text())
    del content["config"]["stages"][1]["steps"]
    (folder / "config.json").write_text(json.dumps(content))
    assert facts.unfinished(load.load(folder)) == "GRPO (12 steps done) and DPO are still to come"


def test_every_stage_says_what_it_cost(make_run: Make):
    folder = make_run(videos=0)
    change_ledger(folder, "sft", steps=1, prompts=0, clips=1, rollouts=0, wall_s=100.0)
    change_ledger(folder, "grpo", wall_s=300.0, forwards=12_000)
    change_ledger(folder, "dpo", wall_s=0.5)
    found = steps(folder)
    assert (found["sft"].what, found["sft"].used) == ("offline · 1 step", "1 clip")
    assert found["sft"].cost.replace("\N{NO-BREAK SPACE}", " ") == "1 min 40 s · 25 %"
    assert found["grpo"].used == "480 prompts, 3,840 rollouts, 12,000 forward-units"
    assert found["dpo"].cost.replace("\N{NO-BREAK SPACE}", " ") == "0.5 s · < 1 %"
    assert found["base"].what == "as it came"


@pytest.mark.parametrize("verdict", ["skipped", "ungated", "done", None])
def test_a_stage_that_no_gate_judged_has_no_gate(make_run: Make, verdict: str | None):
    folder = make_run(videos=0)
    gate = {"verdict": verdict, "sentence": "this stage has no gate."} if verdict else None
    change_ledger(folder, "sft", gate=gate)
    change_ledger(folder, "grpo", gate=gate, kind="collect")
    found = steps(folder)
    assert (found["sft"].state, found["sft"].verdict) == ("ungated", "No gate")
    assert found["sft"].sentence == "Its weights went on unjudged."
    assert found["grpo"].sentence == "It trained nothing."
    assert "kipped" not in page.write(folder).read_text()


def test_a_gate_says_why_in_words_and_numbers(make_run: Make):
    folder = make_run(videos=0)
    fallen = [{"slice": "color=red", "metric": "motion_right", "difference": -0.1, "low": -0.2, "high": -0.01}]
    gate = {"verdict": "failed", "targets": [target()], "fallen_slices": fallen}
    change_ledger(folder, "sft", gate=gate)
    found = steps(folder)["sft"]
    assert found.sentence == (
        "No gain beyond noise in attributes right; 1 slice fell. The weights that entered were kept."
    )
    assert [(f.name, f.tone) for f in found.findings] == [
        ("attributes right", "none"),
        ("motion right on color red", "worse"),
    ]
    assert found.findings[1].difference == "\N{MINUS SIGN}10"
    assert found.findings[1].about == "interval of more than 95 %, since many slices were judged"
    fallen[0] |= {"level": 0.9975, "metric": "physics_violation"}
    change_ledger(folder, "sft", gate={"verdict": "failed", "fallen_slices": fallen})
    finding = steps(folder)["sft"].findings[0]
    assert (finding.difference, finding.interval) == ("+10", "[+1, +20]")
    assert finding.about == "99.75 % interval, since many slices were judged; lower is better"
    change_ledger(folder, "sft", gate={"verdict": "failed", "targets": [target(low=0.01)]})
    assert "Attributes right rose by less than the gate asks for." in steps(folder)["sft"].sentence
    change_ledger(folder, "sft", gate={"verdict": "failed", "sentence": "its noise is not that of the base"})
    assert steps(folder)["sft"].sentence == "Its noise is not that of the base."


def test_a_target_that_rose_by_what_does_not_show_is_not_marked_as_better(make_run: Make):
    folder = make_run(videos=0)
    tiny = {"before": 0.0404, "after": 0.0404002, "difference": 2e-7, "low": 1e-7, "high": 3e-7}
    rose = target(metric="sharpness", rose=True, **tiny)
    change_ledger(folder, "sft", gate={"verdict": "passed", "targets": [rose]})
    found = steps(folder)["sft"].findings[0]
    assert (found.move, found.tone, found.difference) == (("0.0404", "0.0404"), "none", "0")


def test_notes_of_the_run_and_of_stages_and_what_was_left_out_are_shown(make_run: Make):
    folder = make_run(videos=0)
    idle = "18 of 20 iterations taught nothing: all clips of a prompt got the same reward"
    change_ledger(folder, "grpo", note=idle)
    change_config(folder, notes=["32 of 160 held-out prompts are also training prompts"])
    many = load.LEFT_OUT_SHOWN + 5
    (folder / "left_out.txt").write_text("".join(f"day{i}/<b>.avi: no caption\n" for i in range(many)))
    run = load.load(folder)
    said = [caveat.text for caveat in caveats.caveats(run, tables.measure_table(run))]
    assert f"GRPO: {idle[:1].upper()}{idle[1:]}." in said
    assert "32 of 160 held-out prompts are also training prompts." in said
    html = page.write(folder).read_text()
    assert f"{many} lines on data that was left out" in html
    assert html.count("/&lt;b&gt;.avi: no caption") == load.LEFT_OUT_SHOWN
    assert "<b>.avi" not in html


def test_the_page_explains_itself_to_someone_who_was_only_sent_the_file(make_run: Make):
    html = page.write(make_run(videos=0)).read_text()
    legend = html[html.index('id="legend"') : html.index("</details>")]
    for word in ("How to read this page", "95 % interval", "percentage points", "No difference that shows", "gate",
                 "also trained on", "evaluations/", "metrics.jsonl", "ledger.jsonl"):  # fmt: skip
        assert word in legend
    assert "Online: learned from clips of its own" in legend
    assert "Collect:" not in legend
