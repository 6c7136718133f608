"""The stations at the top: what each stage cost, what its gate said, and how far a run is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_run import change_ledger

from reelign.report import load, page, stations

Make = Callable[..., Path]


def shown(folder: Path) -> dict[str, stations.Station]:
    return {station.label: station for station in stations.stations(load.load(folder))}


def target(**more: object) -> dict[str, object]:
    row = {"metric": "attributes_right", "before": 0.4, "after": 0.42, "difference": 0.02, "low": -0.01, "high": 0.05}
    return row | {"rose": False} | more


def test_a_stage_under_way_says_how_far_it_is(make_run: Make):
    folder = make_run(stages=("sft",), videos=0)
    assert [station.what for station in shown(folder).values()][2:] == ["still to come", "still to come"]
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"stage": "grpo", "step": k, "online/reward": 0.1}) + "\n" for k in range(12))
    assert [station.what for station in shown(folder).values()][2:] == ["12 of 100 steps done", "still to come"]
    content = json.loads((folder / "config.json").read_text())
    del content["config"]["stages"][1]["steps"]
    (folder / "config.json").write_text(json.dumps(content))
    assert stations.unfinished(load.load(folder)) == "GRPO (12 steps done) and DPO are still to come"


def test_every_stage_says_what_it_cost(make_run: Make):
    folder = make_run(videos=0)
    change_ledger(folder, "sft", steps=1, prompts=0, clips=1, rollouts=0, wall_s=100.0)
    change_ledger(folder, "grpo", wall_s=300.0, forwards=12_000)
    change_ledger(folder, "dpo", wall_s=0.5)
    found = shown(folder)
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
    found = shown(folder)
    assert (found["sft"].state, found["sft"].verdict) == ("ungated", "No gate")
    assert found["sft"].sentence == "Its weights went on unjudged."
    assert found["grpo"].sentence == "It trained nothing."
    assert "kipped" not in page.write(folder).read_text()


def test_a_gate_says_why_in_words_and_numbers(make_run: Make):
    folder = make_run(videos=0)
    fallen = [{"slice": "color=red", "metric": "motion_right", "difference": -0.1, "low": -0.2, "high": -0.01}]
    gate = {"verdict": "failed", "targets": [target()], "fallen_slices": fallen}
    change_ledger(folder, "sft", gate=gate)
    found = shown(folder)["sft"]
    assert found.sentence == (
        "No gain beyond noise in attributes right; 1 slice got worse. The weights that entered were kept."
    )
    assert [(f.name, f.tone) for f in found.findings] == [
        ("attributes right", "none"),
        ("motion right on color red", "worse"),
    ]
    assert found.findings[1].difference == "\N{MINUS SIGN}10"
    assert found.findings[1].about == "interval of more than 95 %, since more than one comparison was made"
    fallen[0] |= {"level": 0.9975, "metric": "physics_violation"}
    change_ledger(folder, "sft", gate={"verdict": "failed", "fallen_slices": fallen})
    finding = shown(folder)["sft"].findings[0]
    assert (finding.difference, finding.interval) == ("+10", "[+1, +20]")
    assert finding.about == "99.75 % interval, since more than one comparison was made; lower is better"
    change_ledger(folder, "sft", gate={"verdict": "failed", "targets": [target(low=0.01)]})
    assert "Attributes right got better by less than the gate asks for." in shown(folder)["sft"].sentence
    gate = {"verdict": "passed", "targets": [target(rose=True) | {"metric": "physics_violation"}]}
    change_ledger(folder, "sft", gate=gate)
    assert shown(folder)["sft"].sentence == "Physics violation got better, and no slice got worse."
    change_ledger(folder, "sft", gate={"verdict": "failed", "sentence": "its noise is not that of the base"})
    assert shown(folder)["sft"].sentence == "Its noise is not that of the base."


def test_a_target_that_rose_by_what_does_not_show_is_not_marked_as_better(make_run: Make):
    folder = make_run(videos=0)
    tiny = {"before": 0.0404, "after": 0.0404002, "difference": 2e-7, "low": 1e-7, "high": 3e-7}
    rose = target(metric="sharpness", rose=True, **tiny)
    change_ledger(folder, "sft", gate={"verdict": "passed", "targets": [rose]})
    found = shown(folder)["sft"].findings[0]
    assert (found.move, found.tone, found.difference) == (("0.0404", "0.0404"), "none", "0")
