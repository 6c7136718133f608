"""The faults themselves: each does what it says, and what is wrong is seen."""

import errno
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tests.faults import table
from tests.faults.conftest import Chain
from tests.faults.operations import TRESPASS, Fail, Forbid, Full, PowerLoss, Signals, Watch
from tests.faults.verdicts import wrong_with
from tests.faults.warm import Ended

from reelign import video

InChild = Callable[[Callable[[], object]], int]
DATA = bytes(range(256)) * 100


def test_every_kind_of_operation_of_a_run_is_seen(undisturbed: Chain) -> None:
    kinds = {kind for kind, _ in undisturbed.operations}
    assert kinds >= {"create", "write", "fsync", "os.mkdir", "os.rename", "safetensors", "libav", "fcntl.flock"}
    files = {Path(path).suffix for kind, path in undisturbed.operations if kind == "write"}
    assert files >= {".jsonl"}
    assert {kind for kind, _ in undisturbed.reading} > kinds


def _refused(number: int, work: Callable[[], object]) -> None:
    with pytest.raises((OSError, SafetensorError)) as error:
        work()
    assert os.strerror(number) in str(error.value)


def test_a_failing_write_leaves_half_of_its_bytes(tmp_path: Path, in_child: InChild) -> None:
    def work() -> None:
        Watch(tmp_path, Fail(1, errno.ENOSPC))()
        _refused(errno.ENOSPC, lambda: (tmp_path / "data").write_bytes(DATA))

    assert in_child(work) == 0
    assert DATA.startswith((tmp_path / "data").read_bytes()[: len(DATA) // 2])
    assert (tmp_path / "data").stat().st_size >= len(DATA) // 2


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_writers_that_are_not_python_fail_in_their_own_way(tmp_path: Path, in_child: InChild, number: int) -> None:
    def work() -> None:
        Watch(tmp_path, Fail(0, number))()
        _refused(number, lambda: save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors"))

    assert in_child(work) == 0
    assert not (tmp_path / "a.safetensors").exists()


def test_without_room_nobody_writes(tmp_path: Path, in_child: InChild) -> None:
    frames = torch.zeros(2, 3, 16, 16)

    def work() -> None:
        Watch(tmp_path, Full(0))()
        (tmp_path / "folder").mkdir()
        _refused(errno.EFBIG, lambda: (tmp_path / "data").write_bytes(DATA))
        _refused(errno.EFBIG, lambda: save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors"))
        with pytest.raises(Exception, match="File too large"):
            video.write(tmp_path / "clip.mp4", frames, 8)

    assert in_child(work) == 0


def test_a_power_loss_keeps_what_was_synced_and_half_of_the_rest(tmp_path: Path, in_child: InChild) -> None:
    (tmp_path / "before").write_bytes(DATA)

    def work() -> None:
        Watch(tmp_path, PowerLoss(7, tmp_path))()
        with (tmp_path / "synced").open("wb") as file:  # 0
            file.write(DATA)
            file.flush()  # 1
            os.fsync(file)  # 2
            file.write(DATA)  # 3
        (tmp_path / "never").write_bytes(DATA)  # 4, 5
        (tmp_path / "synced").rename(tmp_path / "renamed")  # 6
        (tmp_path / "folder").mkdir()  # 7

    assert in_child(work) == -signal.SIGKILL
    sizes = {path.name: path.stat().st_size / len(DATA) for path in tmp_path.iterdir()}
    assert sizes == {"before": 1, "renamed": 1.5, "never": 0.5}


def test_a_signal_comes_before_its_operation(tmp_path: Path, in_child: InChild) -> None:
    def work() -> None:
        Watch(tmp_path, Signals({1: signal.SIGTERM}))()
        (tmp_path / "first").mkdir()
        (tmp_path / "second").mkdir()

    assert in_child(work) == -signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


@pytest.mark.parametrize(
    "deed",
    [
        lambda folder: (folder / "file").write_text("x"),
        lambda folder: (folder / "folder").mkdir(),
        lambda folder: (folder / "there").unlink(),
        lambda folder: (folder / "there").rename(folder / "away"),
        lambda folder: os.link(folder / "there", folder / "link"),
        lambda folder: subprocess.run(["true"], check=True),
        lambda folder: socket.create_connection(("127.0.0.1", 9)),
    ],
    ids=["write", "mkdir", "remove", "rename", "link", "program", "network"],
)
def test_what_a_dry_run_must_not_do_ends_it(tmp_path: Path, in_child: InChild, deed: Callable[[Path], object]) -> None:
    (tmp_path / "there").touch()
    before = sorted(tmp_path.iterdir())
    assert in_child(lambda: (Forbid()(), deed(tmp_path))) == TRESPASS
    assert sorted(tmp_path.iterdir()) == before


def test_what_a_run_may_write_it_may(tmp_path: Path, in_child: InChild) -> None:
    assert in_child(lambda: (Forbid(str(tmp_path))(), (tmp_path / "file").write_text("x"))) == 0
    assert in_child(lambda: (Forbid(str(tmp_path / "below"))(), (tmp_path / "file").write_text("x"))) == TRESPASS


@pytest.mark.parametrize(
    ("ended", "wrong"),
    [
        (Ended(0, "", "INFO 3 clips\n"), ""),
        (Ended(2, "", "WARNING 3 clips\nreelign: there is no clip; add one.\n"), ""),
        (Ended(None, "", ""), "hangs"),
        (Ended(1, "", "Traceback (most recent call last):\nValueError: x\n"), "traceback: ValueError: x"),
        (Ended(0, "", "Traceback (most recent call last):\nValueError: x\n"), "traceback: ValueError: x"),
        (Ended(3, "", "reelign: no.\n"), "exit 3: reelign: no."),
        (Ended(-9, "", ""), "exit -9: "),
        (Ended(2, "", ""), "says 0 sentences, and last ''"),
        (Ended(2, "", "reelign: one.\nreelign: two.\n"), "says 2 sentences, and last 'reelign: two.'"),
        (Ended(2, "", "reelign: one\nand a half.\n"), "prints 'and a half.'"),
        (Ended(2, "", "reelign: no end\n"), "says no sentence: 'reelign: no end'"),
        (Ended(2, "", f"reelign: {'long ' * 300}.\n"), "says 1510 characters"),
        (Ended(0, "", "thread panicked\n"), "prints 'thread panicked'"),
    ],
)
def test_what_is_wrong_with_an_end_is_seen(ended: Ended, wrong: str) -> None:
    assert wrong_with(ended, quiet=True).startswith(wrong)
    assert bool(wrong_with(ended, quiet=True)) == bool(wrong)


def test_a_command_that_waits_or_works_for_ever_hangs(undisturbed: Chain) -> None:
    for limits, deed in (({"seconds": 0.3}, partial(time.sleep, 9)), ({"cpu": 1}, partial(sum, range(10**12)))):
        with undisturbed.folder() as folder:
            ended = undisturbed.warm("align", "recipe.yaml", "--dry-run", folder=folder, before=deed, **limits)
        assert wrong_with(ended) == "hangs"


def test_the_table_adds_up_the_parts_of_each_kind() -> None:
    kill = {"suite": "test_a.py", "kind": "kill", "same": 3, "sentence": 0, "other": []}
    error = {"suite": "test_a.py", "kind": "error", "same": 1, "sentence": 1000, "other": ["x"]}
    lines = table.render([kill, error, kill]).splitlines()[2:]
    assert [line.split(" | ")[:5] for line in lines] == [
        ["| error", "1,002", "1", "1,000", "1"],
        ["| kill", "6", "6", "0", "0"],
        ["| **sum**", "1,008", "7", "1,000", "1"],
    ]
