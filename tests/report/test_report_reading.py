"""Damaged run folders: one sentence that names the file, or a page; never a traceback, never a wait."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic_run

from reelign.errors import UserError
from reelign.report import caveats, headline, load, page, reading, run, tables

Make = Callable[..., Path]


@pytest.fixture
def small(make_run: Make) -> Path:
    """A run of few prompts and steps."""
    folder = make_run("small", prompts=[(f"prompt {i}", {"color": "rg"[i % 2]}) for i in range(6)], members=1, videos=1)
    rows = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(rows[::25]))
    (folder / "left_out.txt").write_text("a.avi\n")
    return folder


def refused(folder: Path) -> str:
    """The one sentence that refuses a folder."""
    with pytest.raises(UserError) as caught:
        page.write(folder)
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith((".", "?"))
    assert len(said) < 500
    return said


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (lambda path: path.mkdir(), "is a folder or a device where a file should be"),
    "a pipe": (make_pipe, "is a folder or a device where a file should be"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "is a link to nothing"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "too many levels of symbolic links"),
    "half a character": (lambda path: path.write_bytes('{"stage": "качество'.encode()[:-1] + b"\n"), "is no UTF-8"),
    "half a row": (lambda path: path.write_text('{"stage": "sft"\n'), "is not JSON"),
    "a list": (lambda path: path.write_text("[1]\n"), ""),
    "a number of 5000 digits": (lambda path: path.write_text('{"a": ' + "9" * 5000 + "}\n"), "is not JSON"),
    "a nest of 100000 lists": (lambda path: path.write_text("[" * 100_000 + "\n"), "nested too deeply"),
}


@pytest.mark.parametrize("name", ["config.json", "ledger.jsonl", "metrics.jsonl", "evaluations/sft.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_in_one_sentence(small: Path, name: str, damage: str):
    (small / name).unlink()
    write, why = DAMAGE[damage]
    write(small / name)
    said = refused(small)
    assert name in said
    assert why in said


def test_folders_and_files_that_stand_in_for_each_other_are_named(small: Path):
    shutil.rmtree(small / "evaluations")
    (small / "evaluations").write_text("{}")
    assert "evaluations cannot be read as a folder (not a directory)" in refused(small)
    shutil.rmtree(small / "samples")
    (small / "evaluations").unlink()
    make_pipe(small / "samples")
    page.write(small)  # nothing was evaluated, so no sample is asked for


def test_a_name_that_no_folder_can_have_is_refused():
    assert "file name too long" in refused(Path("x" * 5000))


def test_files_too_large_to_be_a_runs_are_refused(small: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "LARGEST_MIB", 0)
    assert "config.json is larger than 0 MiB" in refused(small)
    monkeypatch.setattr(reading, "LARGEST_MIB", 256)
    monkeypatch.setattr(reading, "LONGEST_LINE_MIB", 1)
    with (small / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "' + "x" * 2**20)
    assert "is longer than 1 MiB" in refused(small)


@pytest.mark.parametrize("name", ["ledger.jsonl", "metrics.jsonl"])
def test_a_row_that_a_kill_cut_short_is_dropped_wherever_it_was_cut(small: Path, name: str):
    rows = len(list(reading.rows(small / name)))
    whole = (small / name).read_bytes()
    row = '{"stage": "качество", "step": 1, "online/reward": 1.0}'.encode()
    for length in range(len(row)):
        (small / name).write_bytes(whole + row[:length])
        assert len(list(reading.rows(small / name))) == rows


def test_a_line_separator_in_a_name_ends_no_row(small: Path):
    rows = [json.loads(line) for line in (small / "ledger.jsonl").read_text().splitlines()]
    rows[0]["stage"] = "a\u2028b"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (small / "ledger.jsonl").write_text(text, encoding="utf-8")
    assert [stage.stage for stage in load.load(small).stages] == ["a\u2028b", "grpo", "dpo"]


def test_missing_parts_of_a_run_leave_a_page(small: Path):
    for name in ("left_out.txt", "metrics.jsonl", "samples", "evaluations", "ledger.jsonl"):
        path = small / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert page.write(small).exists()


def test_unknown_fields_and_absent_ones_do_not_matter(small: Path):
    (small / "ledger.jsonl").write_text('{"stage": "sft", "from_a_later_version": {"a": [1]}}\n')
    content = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({"config": content["config"], "seal": 1}))
    run = load.load(small)
    assert (run.stages[0].gate, run.stages[0].wall_s, run.planned) == (None, None, ("grpo", "dpo"))
    assert "of an unknown version" in page.write(small).read_text()


def test_an_infinite_measure_is_left_out_and_said(small: Path):
    path = small / "evaluations" / "dpo.json"
    content = json.loads(path.read_text())
    for clip in content["clips"][:2]:
        clip["measures"]["diversity"] = float("inf")
    content["measures"]["diversity"]["mean"] = float("inf")
    path.write_text(json.dumps(content))
    run = load.load(small)
    assert run.evaluations["dpo"].clips[0].measures["diversity"] is None
    said = [caveat.text for caveat in caveats.caveats(run, tables.measure_table(run)) if caveat.grave]
    assert "Diversity was infinite on 2 clips of DPO, which are left out of its numbers; mend the metric." in said
    page.write(small)


def test_an_evaluation_that_was_made_and_is_gone_is_said(small: Path):
    (small / "evaluations" / "sft.json").unlink()
    run = load.load(small)
    said = [caveat.text for caveat in caveats.caveats(run, tables.measure_table(run)) if caveat.grave]
    assert any("evaluations/sft.json is missing although the stage was evaluated" in text for text in said)


def test_an_evaluation_of_its_own_is_no_ones_predecessor_and_not_the_end(small: Path):
    rows = [json.loads(line) for line in (small / "ledger.jsonl").read_text().splitlines()]
    rows[1] |= {"kind": "evaluate", "gate": None}
    rows[2] |= {"kind": "evaluate", "gate": None}
    (small / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = load.load(small)
    table = tables.measure_table(run)
    assert table.final == "sft"
    assert [cell.to_previous is None for cell in table.rows[0].cells if cell] == [True, False, True, True]
    said = " ".join(sentence.striptags() for sentence in headline.headline(run, table))
    assert "GRPO" not in said
    assert "DPO" not in said


def test_clips_of_other_prompts_are_not_paired_by_their_numbers(small: Path):
    path = small / "evaluations" / "dpo.json"
    content = json.loads(path.read_text())
    for clip in content["clips"]:
        clip["prompt"] = "something else"
    path.write_text(json.dumps(content))
    run = load.load(small)
    assert all(cell.to_base is None for row in tables.measure_table(run).rows if (cell := row.at("dpo")))
    assert "not evaluated" in page.write(small).read_text()


def test_a_video_with_an_impossible_name_is_missing_and_no_more(small: Path):
    path = small / "evaluations" / "base.json"
    for name in ("a\0b.mp4", "x" * 5000, "samples"):
        content = json.loads(path.read_text())
        content["clips"][0]["video"] = name
        path.write_text(json.dumps(content))
        assert "video file missing" in page.write(small).read_text()


def test_half_an_emoji_in_any_name_is_written(small: Path):
    path = small / "evaluations" / "dpo.json"
    path.write_text(path.read_text().replace('"color": "r"', '"color": "\\ud800"').replace('"diversity"', '"\\udc00"'))
    page.write(small)


def test_stages_to_come_are_named_as_the_driver_names_them(tmp_path: Path):
    from reelign import driver
    from reelign.parts import PartConfig
    from reelign.stages import collect, offline, online

    def method(name: str) -> PartConfig:
        return PartConfig.model_construct(name=name)

    asked = (
        offline.Config.model_construct(method=method("sft")),
        offline.Config.model_construct(method=method("sft")),
        online.Config.model_construct(method=method("grpo"), label="sft"),
        online.Config.model_construct(method=method("base")),
        collect.Config.model_construct(),
    )
    written: list[dict[str, Any]] = [{"name": stage.name, "label": stage.label} for stage in asked]
    for stage, row in zip(asked[:4], written, strict=False):
        row["method"] = {"name": stage.method.name}
    names = driver.labels(driver.Recipe.model_construct(stages=asked))
    assert names == ["sft", "sft-2", "sft-3", "base-2", "collect"]
    assert run.labels({"stages": written}) == tuple(names)
    synthetic_run.write_config(tmp_path / "begun")
    assert load.load(tmp_path / "begun").planned == ("sft", "grpo", "dpo")
