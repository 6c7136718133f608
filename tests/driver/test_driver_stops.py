"""How a run ends early: what is saved then, what is said, and that going on gives the same bits."""

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.driver.toys import InChild, Watcher, go, newest, outcome_of, recipe_in, tree_of
from tests.parts import linear_reward

from reelign import driver
from reelign.driver import interrupts, watching
from reelign.errors import BadData, CannotWrite, PartFailed, RunStopped
from reelign.files import append
from reelign.models import gaussian
from reelign.runtime.learner import Learner
from reelign.runtime.local_work import LocalWork

Whole = tuple[Path, list[str]]
RARELY = "run.save_every=100"


def _resume(root: Path, *assignments: str, **changes: Any) -> Path:
    return go(recipe_in(root, *assignments, **changes), Watcher(), resume=True)


def _failing(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, at: int, error: Exception) -> None:
    """Let the `at`-th call of a method raise instead."""
    real, calls = getattr(owner, name), iter(range(1, 1000))

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise error
        return real(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, method)


def test_a_reward_that_fails_costs_only_its_step(whole: Whole, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _failing(patch, linear_reward.Linear, "__call__", 4, PartFailed("the reward raised."))
        with pytest.raises(PartFailed, match="the reward raised"):
            go(recipe_in(tmp_path, RARELY), Watcher())
    assert newest(tmp_path / "toy") == "grpo-00003"
    assert outcome_of(_resume(tmp_path)) == outcome_of(whole[0])


@pytest.mark.parametrize(
    "error", [RunStopped("the loss is nan."), BadData("a clip is gone."), RuntimeError("no memory")]
)
def test_an_update_that_changed_nothing_costs_only_its_step(whole: Whole, tmp_path: Path, error: Exception) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Five of the first stage, six of the second; the third of the third stage fails.
        _failing(patch, Learner, "update", 14, error)
        with pytest.raises(type(error), match=str(error)):
            go(recipe_in(tmp_path, RARELY), Watcher())
    assert newest(tmp_path / "toy") == "dpo-00002"
    assert outcome_of(_resume(tmp_path)) == outcome_of(whole[0])


def test_a_step_that_changed_something_is_not_saved(whole: Whole, tmp_path: Path) -> None:
    real = LocalWork.update

    def update(self: LocalWork, batch: Any, seed: int, where: str) -> dict[str, float]:
        found = real(self, batch, seed, where)
        if where == "step 3 of stage grpo":
            raise RunStopped("too late.")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalWork, "update", update)
        with pytest.raises(RunStopped, match="too late"):
            go(recipe_in(tmp_path, RARELY), Watcher())
    assert newest(tmp_path / "toy") == "sft-end"
    assert outcome_of(_resume(tmp_path)) == outcome_of(whole[0])


def test_what_a_method_remembers_must_not_have_moved_either(tmp_path: Path) -> None:
    """Credit moves the moving averages of `bpgo`; the update after it fails."""
    stage = tree_of(tmp_path)["stages"][1]
    stage["method"] = {**stage["method"], "modules": [{"name": "bpgo", "share": 0.0}]}
    with pytest.MonkeyPatch.context() as patch:
        _failing(patch, Learner, "update", 4, RunStopped("the loss is nan."))
        with pytest.raises(RunStopped, match="the loss is nan"):
            go(recipe_in(tmp_path, RARELY, stages=[stage]), Watcher())
    whole = go(recipe_in(tmp_path / "whole", stages=[stage]), Watcher())
    assert newest(tmp_path / "toy") in ("base", "grpo-00003")
    assert outcome_of(_resume(tmp_path, stages=[stage])) == outcome_of(whole)


def test_a_broken_model_is_neither_saved_nor_exported(tmp_path: Path) -> None:
    def break_it(model: gaussian.Gaussian) -> None:
        with torch.no_grad():
            model.network.shift[0, 0, 0, 0] = float("nan")

    real = LocalWork.update

    def update(self: LocalWork, batch: Any, seed: int, where: str) -> dict[str, float]:
        found = real(self, batch, seed, where)
        if where == "step 4 of stage dpo":
            break_it(self.model)  # type: ignore[arg-type]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalWork, "update", update)
        with pytest.raises(RunStopped, match=r"the weight 'shift' is not finite; it was not saved, and the checkpoint"):
            go(recipe_in(tmp_path), Watcher())
    assert newest(tmp_path / "toy") == "dpo-00004"
    assert not (tmp_path / "toy" / "final").exists()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`tiny_disk(kib)`: a file system of that size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kib: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small file system needs root")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


@pytest.mark.parametrize("kib", [8, 20, 36, 52, 68])
def test_a_full_disk_is_said_and_the_advice_works(
    whole: Whole, tiny_disk: Callable[[int], Path], kib: int, tmp_path: Path
) -> None:
    root = tiny_disk(kib)
    with pytest.raises(CannotWrite, match=r"cannot write .*: No space left on device; make room there") as error:
        go(recipe_in(root), Watcher())
    told = str(error.value)
    assert told.endswith((", then go on with --resume.", " or choose another place."))
    subprocess.run(["mount", "-o", "remount,size=8m", str(root)], check=True)
    assert outcome_of(go(recipe_in(root), Watcher(), resume="--resume" in told)) == outcome_of(whole[0])


@pytest.mark.parametrize(
    ("at", "number"), list(zip(range(1, 60, 8), [errno.ENOSPC, errno.EIO, errno.EROFS] * 3, strict=False))
)
def test_any_sync_that_fails_is_one_sentence(whole: Whole, tmp_path: Path, at: int, number: int) -> None:
    real, calls = os.fsync, iter(range(1, 10000))

    def fsync(file: int) -> None:
        if next(calls) == at:
            raise OSError(number, os.strerror(number))
        real(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(CannotWrite, match=os.strerror(number)) as error:
            go(recipe_in(tmp_path, RARELY), Watcher())
    assert "\n" not in str(error.value)
    started = (tmp_path / "toy" / "config.json").exists()
    assert outcome_of(go(recipe_in(tmp_path), Watcher(), resume=started)) == outcome_of(whole[0])


def test_a_folder_that_goes_away_is_said(tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    watcher = Watcher("grpo 1", lambda: (tmp_path / "toy").rename(moved))
    with pytest.raises(CannotWrite, match=r"cannot write .*: No such file .*; its folder is gone: put it back"):
        go(recipe_in(tmp_path), watcher)
    moved.rename(tmp_path / "toy2")


def test_a_watcher_that_fails_is_let_go(whole: Whole, tmp_path: Path) -> None:
    def closed() -> None:
        raise OSError(errno.EIO, "Input/output error")

    for moment in ("grpo 2", 0, 3):
        root = tmp_path / str(moment)
        watcher = Watcher(moment, closed)
        folder = go(recipe_in(root), watcher)
        assert outcome_of(folder) == outcome_of(whole[0])
        told = len(watcher.events)
        assert (
            "toys.Watcher is told nothing any more, as it failed: OSError: [Errno 5]"
            in (folder / "log.txt").read_text()
        )
    assert told == 4


def test_the_log_tells_what_a_terminal_would(whole: Whole) -> None:
    text = (whole[0] / "log.txt").read_text()
    lines = [line.partition(" ")[2] for line in text.splitlines()]
    assert [line for line in lines if line.startswith("grpo")] == [
        "grpo 0/6",
        *[line for line in lines if line.startswith("grpo 6/6 reward ") and " 0:00:0" in line],
        *[event for event in whole[1] if event.startswith("grpo: passed")],
    ]
    assert all(line[:4] == "20" + line[2:4] and line[10] == "T" for line in text.splitlines())


def test_the_log_tells_of_progress_now_and_then(tmp_path: Path) -> None:
    clock = iter(range(0, 10000, 10))
    log = watching.Log(tmp_path / "log.txt", lambda: float(next(clock)))
    log.begin("sft", 100, 20)
    for done in range(21, 28):
        log.step(done, {})
    lines = [line.partition(" ")[2] for line in (tmp_path / "log.txt").read_text().splitlines()]
    # Steps of 10 s each: after three of them 77 are left.
    assert lines == ["sft 20/100", "sft 23/100 0:00:30, 0:12:50 left", "sft 26/100 0:01:00, 0:12:20 left"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a folder"])
def test_a_log_that_cannot_be_written_ends_nothing(whole: Whole, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "toy" / "log.txt"
    path.parent.mkdir()
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link to a folder": lambda: path.symlink_to(".")}[kind]()
    assert outcome_of(go(recipe_in(tmp_path), Watcher())) == outcome_of(whole[0])
    with pytest.raises(OSError, match=r"directory|device|links"):
        append(path, b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_that_ask_for_an_end_save_first(whole: Whole, tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def twice() -> None:
        os.kill(os.getpid(), number)
        if number in (signal.SIGHUP, signal.SIGUSR1):
            os.kill(os.getpid(), number)

    with pytest.raises(driver.Interrupted, match="saved after step 3 of stage grpo; go on with --resume"):
        go(recipe_in(tmp_path, RARELY), Watcher("grpo 3", twice))
    assert signal.getsignal(number) is before
    assert outcome_of(_resume(tmp_path)) == outcome_of(whole[0])


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_of_signals_that_were_to_be_ignored_only_ctrl_c_is_heard(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    heard = pytest.raises(driver.Interrupted) if number == signal.SIGINT else nullcontext()
    try:
        with heard:
            go(recipe_in(tmp_path), Watcher("grpo 3", lambda: os.kill(os.getpid(), number)))
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_run_in_another_thread_hears_no_signals_and_runs(whole: Whole, tmp_path: Path) -> None:
    found: list[Path] = []
    thread = threading.Thread(target=lambda: found.append(go(recipe_in(tmp_path), Watcher())))
    thread.start()
    thread.join()
    assert outcome_of(found[0]) == outcome_of(whole[0])


def test_a_patient_second_wish_does_not_stop_at_once() -> None:
    with interrupts.saving_on_interrupt() as wish:
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert wish == [signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_memory_does_not_grow_with_the_rows_of_a_run(tmp_path: Path) -> None:
    """A long file of metrics is gone through once, in pieces."""
    import time
    import tracemalloc

    from reelign.runtime.journal import Journal

    journal = Journal(tmp_path / "metrics.jsonl")
    row = {f"online/quantity-{k}": 0.1234567890123456 * k for k in range(40)}
    for step in range(4000):
        journal.add({"index": 0, "step": step, **row})
    seal = journal.seal()
    journal.add({"index": 0, "step": 4000, **row})
    tracemalloc.start()
    began = time.perf_counter()
    again = Journal(tmp_path / "metrics.jsonl")
    assert again.go_back(seal, lambda row: True) == ""
    seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "metrics.jsonl").stat().st_size == seal.bytes > 4_000_000
    assert again.seal() == seal
    assert peak < 3_000_000
    assert seconds < 2


def test_killed_while_files_step_aside(whole: Whole, tmp_path: Path, in_child: InChild) -> None:
    """Between two renames neither the old nor the new folder has its name."""
    go(recipe_in(tmp_path), Watcher())
    calls = iter(range(100))
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        found = real(self, target)
        if ".old-" in str(target) and next(calls) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    def work() -> None:
        Path.rename = rename  # type: ignore[method-assign, assignment]
        _resume(tmp_path, "stages.2.steps=6")

    # The first to step aside is dpo-end, the second final.
    assert in_child(work) == -signal.SIGKILL
    assert not (tmp_path / "toy" / "final").exists()
    _resume(tmp_path, "stages.2.steps=6")
    assert not list((tmp_path / "toy").glob("*aside*"))
    assert not list((tmp_path / "toy").rglob(".*-????????"))
    other = go(recipe_in(tmp_path / "other", "stages.2.steps=6"), Watcher())
    assert outcome_of(tmp_path / "toy") == outcome_of(other)


def test_what_a_closing_terminal_says_twice_is_heard_until_all_is_said(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, outside = watching.Log.say, []

    def say(self: watching.Log, sentence: str) -> None:
        if sentence.startswith("stopped"):
            os.kill(os.getpid(), signal.SIGHUP)
        real(self, sentence)

    before = signal.signal(signal.SIGHUP, lambda number, frame: outside.append(number))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(watching.Log, "say", say)
            with pytest.raises(driver.Interrupted, match="saved after step 3 of stage grpo"):
                go(recipe_in(tmp_path), Watcher("grpo 3", lambda: os.kill(os.getpid(), signal.SIGHUP)))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert outside == []
    assert outcome_of(_resume(tmp_path)) == outcome_of(whole[0])
