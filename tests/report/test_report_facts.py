"""What stands near the top: the model, the machine, the cost of each stage, and how to read it all."""

import json
from collections.abc import Callable
from pathlib import Path

from synthetic_run import change_ledger

from reelign.report import caveats, facts, load, page, tables

Make = Callable[..., Path]


def change_config(folder: Path, **more: object) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | more))


def test_the_model_the_machine_and_the_command_are_told(make_run: Make):
    folder = make_run(videos=0)
    told = {fact.name: (fact.text, fact.more) for fact in facts.facts(load.load(folder))}
    assert told["Base model"] == ("packaged:tiny (wan)", "an adapter (LoRA, rank 16) was trained")
    unsaid = {"name": "lora", "rank": None}
    for adapter, about, trained in (
        (unsaid, {}, "an adapter (LoRA) was trained"),
        (unsaid, {"adapter": {"name": "lora", "rank": 4}}, "an adapter (LoRA, rank 4) was trained"),
        ({"name": "lab.gain"}, {}, "an adapter (lab.gain) was trained"),
        (None, {}, "all weights were trained"),
    ):
        model = {"name": "wan", "weights": "packaged:tiny", "adapter": adapter}
        fact = facts._model({"model": model}, {"settled": about})
        assert fact is not None
        assert fact.more == trained
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
