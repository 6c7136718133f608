"""A damaged run folder: the same bits with a line that says so, or one sentence; never another verdict."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.driver.toys import Watcher, go, newest, outcome_of, recipe_in, tree_of

from reelign import driver
from reelign.driver import run_folder
from reelign.errors import BadCheckpoint, BadConfig, BadData, CannotWrite, UserError
from reelign.runtime.checkpoint import Checkpoint, Store

Whole = tuple[Path, list[str]]


def _resume(root: Path, *assignments: str, **changes: Any) -> tuple[Path, list[str]]:
    watcher = Watcher()
    return go(recipe_in(root, *assignments, **changes), watcher, resume=True), watcher.said


def _contents(folder: Path) -> dict[str, bytes]:
    """All of a run folder but its log and its status."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: raw for name, raw in found.items() if name not in ("log.txt", "run.json")}


def _flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(bytes(raw))


def _other_verdict(path: Path) -> None:
    path.write_text(path.read_text().replace('"failed"', '"passed"'))


LEDGER: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: _flip(path, 5),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "another verdict": _other_verdict,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link": lambda path: (path.rename(path.with_name("elsewhere")), path.symlink_to("elsewhere")),
}


@pytest.mark.parametrize("how", LEDGER)
def test_the_ledger_is_restored_from_the_seal(whole: Whole, again: Path, how: str) -> None:
    path = again / "toy" / "ledger.jsonl"
    LEDGER[how](path)
    was = path.read_bytes() if path.is_file() else None
    folder, said = _resume(again)
    assert outcome_of(folder) == outcome_of(whole[0])
    assert sum("ledger.jsonl is not what the checkpoint has sealed; its rows are written again" in s for s in said) == 1
    # What is no part of what was restored is still there.
    assert (folder / "ledger.aside-1.jsonl").exists() == (how not in ("gone", "empty", "cut"))
    if how in ("one byte", "another verdict"):
        assert (folder / "ledger.aside-1.jsonl").read_bytes() == was


def test_a_row_behind_the_seal_is_written_again_without_a_word(whole: Whole, again: Path) -> None:
    for name in ("ledger.jsonl", "metrics.jsonl"):
        with (again / "toy" / name).open("ab") as file:
            file.write(b'{"stage": "grpo", "index": 1, "step": 5}\n{"stage": "gr')
    folder, said = _resume(again)
    assert outcome_of(folder) == outcome_of(whole[0])
    assert not [sentence for sentence in said if "seal" in sentence]
    assert not list(folder.glob("*aside*"))


def _rows_left(path: Path) -> int:
    return len(path.read_bytes().split(b"\n")) - 1


@pytest.mark.parametrize(
    ("how", "lost", "beside"),
    [
        (lambda path: path.unlink(), 8, False),
        (lambda path: path.write_bytes(b""), 8, False),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), 1, True),
        (lambda path: _flip(path, 0), 1, True),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\xff\xfe\n", 1)), 1, True),
        (lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:])), 1, False),
        (lambda path: (path.unlink(), os.mkfifo(path)), 8, True),
    ],
    ids=["gone", "empty", "cut", "one byte", "no text", "a row gone", "a pipe"],
)
def test_rows_of_metrics_that_can_be_read_stay(
    whole: Whole, again: Path, how: Callable[[Path], object], lost: int, beside: bool
) -> None:
    path = again / "toy" / "metrics.jsonl"
    how(path)
    was = path.read_bytes() if path.is_file() else None
    folder, said = _resume(again)
    expected = outcome_of(whole[0])
    assert {**outcome_of(folder), "metrics": 0} == {**expected, "metrics": 0}
    assert len(outcome_of(folder)["metrics"]) == len(expected["metrics"]) - lost
    (sentence,) = [s for s in said if "metrics.jsonl" in s]
    assert f"{8 - lost} rows of it can be read and are kept" in sentence
    assert (folder / "metrics.aside-1.jsonl").exists() == beside
    if beside and was is not None:
        assert (folder / "metrics.aside-1.jsonl").read_bytes() == was


def test_damaged_metrics_are_set_aside_once(again: Path) -> None:
    _flip(again / "toy" / "metrics.jsonl", 0)
    for _ in range(3):
        with pytest.raises(driver.Interrupted):
            go(recipe_in(again), Watcher(5, lambda: os.kill(os.getpid(), 2)), resume=True)
    assert len(list((again / "toy").glob("metrics.aside*"))) == 1


@pytest.mark.parametrize("label", ["base", "sft"])
@pytest.mark.parametrize("how", ["gone", "edited", "cut", "empty", "folder"])
def test_an_evaluation_that_is_not_what_was_written_is_refused(again: Path, label: str, how: str) -> None:
    path = again / "toy" / "evaluations" / f"{label}.json"
    raw = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "gone":
        changed = {"edited": raw.replace(b"0.", b"1.", 1), "cut": raw[: len(raw) // 2], "empty": b""}[how]
        assert changed != raw
        path.write_bytes(changed)
    before = _contents(again / "toy")
    sentence = rf"{label}\.json' is not the evaluation that was written: .*; restore it, or start a new run\.$"
    with pytest.raises(BadData, match=sentence):
        _resume(again)
    assert _contents(again / "toy") == before


CONFIG: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "no object": lambda path: path.write_text("[1]"),
    "nothing in it": lambda path: path.write_text("{}"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe"),
    "no id": lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "id": 3})),
    "no stages": lambda path: path.write_text(path.read_text().replace('"stages"', '"phases"')),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("how", CONFIG)
def test_a_run_without_its_config_is_not_started_over(again: Path, how: str, resume: bool) -> None:
    CONFIG[how](again / "toy" / "config.json")
    before = _contents(again / "toy")
    lost = "its config.json is lost; put it back" if how == "gone" else "config.json' is damaged"
    with pytest.raises(BadConfig, match=lost if resume or how == "gone" else "already holds a run") as error:
        go(recipe_in(again, "run.seed=9"), Watcher(), resume)
    assert "\n" not in str(error.value)
    assert _contents(again / "toy") == before


def test_the_config_of_another_run_is_noticed(again: Path, finished: Path) -> None:
    shutil.copy(finished / "toy" / "config.json", again / "toy" / "config.json")
    with pytest.raises(BadCheckpoint, match=r"is a checkpoint of another run; move it out of there"):
        _resume(again)


def test_a_run_of_an_older_version_is_refused_in_a_sentence(again: Path) -> None:
    path = again / "toy" / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "id"}))
    with pytest.raises(BadConfig, match=r"was started by an older version of Reelign, .*; finish it there, or choose"):
        _resume(again)


def test_lost_checkpoints_are_not_made_again_in_silence(again: Path) -> None:
    shutil.rmtree(again / "toy" / "checkpoints")
    before = _contents(again / "toy")
    with pytest.raises(BadCheckpoint, match=r"its checkpoints are gone; put them back, or start a new run"):
        _resume(again)
    assert _contents(again / "toy") == before


@pytest.mark.parametrize("name", ["learner.safetensors", "state.json"])
def test_a_damaged_newest_checkpoint_costs_steps_and_no_bits(whole: Whole, again: Path, name: str) -> None:
    assert newest(again / "toy") == "grpo-00003"
    path = again / "toy" / "checkpoints" / "grpo-00003" / name
    path.write_bytes(path.read_bytes()[:100])
    folder, said = _resume(again)
    (sentence,) = [s for s in said if "damaged" in s]
    assert sentence.endswith("Going on from step 2 of stage grpo, which was saved before it.")
    assert outcome_of(folder) == outcome_of(whole[0])


def test_damaged_entering_weights_are_said_before_the_gate_needs_them(whole: Whole, again: Path) -> None:
    _flip(again / "toy" / "checkpoints" / "sft-end" / "learner.safetensors", -1)
    folder, said = _resume(again)
    assert any("Should the gate fail, the weights that entered the stage cannot be brought back." in s for s in said)
    assert outcome_of(folder) == outcome_of(whole[0])


def test_a_checkpoint_of_another_run_is_refused(again: Path, finished: Path) -> None:
    shutil.copytree(finished / "toy" / "checkpoints" / "dpo-end", again / "toy" / "checkpoints" / "dpo-end")
    with pytest.raises(BadCheckpoint, match=r"dpo-end' is a checkpoint of another run; move it out of there"):
        _resume(again)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stage": 99}, "its position is wrong"),
        ({"stage": "one"}, "its stage is wrong"),
        ({"next": -1}, "its next is wrong"),
        ({"next": 50}, "which has only 6"),
        ({"metrics": None}, "its metrics is wrong"),
        ({"ledger": []}, "rows of the ledger for 1 finished stages"),
        ({"recipe": "0123456789ab"}, "made with other settings than config.json there says"),
        ({"more": 1}, "its more is wrong"),
    ],
)
def test_a_position_out_of_sense_is_refused(again: Path, change: dict[str, Any], sentence: str) -> None:
    run = json.loads((again / "toy" / "config.json").read_text())["id"]
    store = Store(again / "toy" / "checkpoints", run)
    header = store.peek()
    assert header is not None
    found = store.load(header.name, header.model)
    store.save("grpo-00004", header.model, Checkpoint(found.tensors, {**found.position, **change}, found.needs))
    with pytest.raises(BadCheckpoint, match=sentence) as error:
        _resume(again)
    assert "\n" not in str(error.value)


def _as_it_is(path: Path) -> tuple[int, int, bytes]:
    return path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()


def test_resuming_a_finished_run_leaves_a_whole_model_alone(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reelign.models import gaussian

    def fail(*_: object) -> None:
        raise AssertionError("there is nothing to build a model for")

    monkeypatch.setattr(gaussian, "build", fail)
    (finished / "toy" / "final" / "notes.txt").write_text("mine")
    before = {path: _as_it_is(path) for path in (finished / "toy" / "final").iterdir()}
    _resume(finished)
    assert {path: _as_it_is(path) for path in (finished / "toy" / "final").iterdir()} == before


@pytest.mark.parametrize("how", ["gone", "flipped", "a file gone", "record gone"])
def test_a_model_that_is_not_whole_is_exported_again(whole: Whole, finished: Path, how: str) -> None:
    final = finished / "toy" / "final"
    if how == "gone":
        shutil.rmtree(final)
    elif how == "flipped":
        _flip(final / "offsets.safetensors", -1)
    elif how == "a file gone":
        (final / "config.json").unlink()
    else:
        (finished / "toy" / "final.json").unlink()
    was = {p.name: p.read_bytes() for p in final.iterdir()} if final.exists() else {}
    folder, said = _resume(finished)
    assert outcome_of(folder) == outcome_of(whole[0])
    beside = finished / "toy" / "final.aside-1"
    assert beside.exists() == bool(was)
    if was:
        assert {p.name: p.read_bytes() for p in beside.iterdir()} == was
        assert "final/ was not as it had been exported; as it was found it is now final.aside-1/." in said


def test_a_folder_in_place_of_the_record_is_refused_before_the_model_is_put_aside(finished: Path) -> None:
    record, before = finished / "toy" / "final.json", outcome_of(finished / "toy")
    kept = record.read_bytes()
    record.unlink()
    record.mkdir()
    with pytest.raises(CannotWrite, match=r"final.json: Is a directory; move away what stands there"):
        _resume(finished)
    record.rmdir()
    record.write_bytes(kept)
    assert outcome_of(finished / "toy") == before


def test_an_evaluation_that_cannot_be_read_again_once_written_is_made_anew(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as disk:
        disk.setattr(run_folder, "digest", broken)
        with pytest.raises(CannotWrite, match=r"base\.json: Input/output error; look at that disk"):
            go(recipe_in(tmp_path), Watcher())
    assert outcome_of(_resume(tmp_path)[0]) == outcome_of(whole[0])


def test_an_edited_evaluation_of_a_finished_run_is_refused(finished: Path) -> None:
    (finished / "toy" / "evaluations" / "grpo.json").write_text("{}")
    with pytest.raises(BadData, match="is not the evaluation that was written"):
        _resume(finished)


def test_an_evaluate_stage_is_never_what_a_gate_compares_with(tmp_path: Path) -> None:
    first, second, _ = tree_of(tmp_path)["stages"]
    other = {**tree_of(tmp_path)["evaluate"], "name": "evaluate", "seed": 99, "members": 3}
    tree = tree_of(tmp_path)
    del first["gate"]
    folder = go(recipe_in(tmp_path, stages=[first, other, second], evaluate=tree["evaluate"]), Watcher())
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert [row["judged"] for row in rows] == [True, False, True]
    level = json.loads((folder / "evaluations" / "sft.json").read_text())["measures"]["level"]["mean"]
    assert rows[2]["gate"]["targets"][0]["before"] == level


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_something_else_than_a_lock_is_said(tmp_path: Path, kind: str) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "precious").write_text("mine")
    lock = tmp_path / "toy" / ".lock"
    make = {"folder": lock.mkdir, "link": lambda: lock.symlink_to("../precious"), "pipe": lambda: os.mkfifo(lock)}
    make[kind]()
    with pytest.raises(UserError, match=r"\.lock.*; move (it|away what stands there)") as error:
        go(recipe_in(tmp_path), Watcher())
    assert "\n" not in str(error.value)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "toy").write_text("a letter")
    with pytest.raises(UserError, match=r"cannot write .*toy/\.lock: .*; move away what stands there"):
        go(recipe_in(tmp_path), Watcher())


def test_files_of_others_in_a_run_folder_survive_it(tmp_path: Path) -> None:
    theirs = [
        tmp_path / "toy" / name for name in (".draft.tmp-7", "notes/.mine.tmp-1", "notes/.x.tmp-01234567", "a.txt")
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    go(recipe_in(tmp_path), Watcher())
    _resume(tmp_path)
    assert all(path.read_text() == "mine" for path in theirs)
