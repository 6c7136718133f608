"""What is computed once and kept: the same bits from everywhere, within bounds, and nothing that was damaged."""

import errno
import logging
import mmap
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reelign import files, store
from reelign.store import DiskStore, Memory, StoreConfig

PAGE = mmap.PAGESIZE / store.GIB
VALUES = {
    "float32": torch.tensor([[1.5, -0.0], [float("inf"), 1e-42]]),
    "bfloat16": torch.tensor([0.1, -3.0, 7e5]).bfloat16(),
    "whole numbers": torch.arange(6).reshape(1, 2, 3),
    "one number": torch.tensor(2.5),
    "large": torch.linspace(-1, 1, 2**15 + 1).bfloat16(),
    "none": torch.zeros(0, 4),
}


class Counting:
    """Makes one value, and counts how often it is asked to."""

    def __init__(self, value: Tensor) -> None:
        self.value, self.calls = value, 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return self.value.clone()


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[..., DiskStore]:
    """A store as a new process opens it."""
    return lambda ram_gib=1, disk_gib=1: DiskStore(tmp_path / "kept", float(ram_gib), float(disk_gib))


def paths(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "kept").rglob("*") if path.is_file())


def same(a: Tensor, b: Tensor) -> bool:
    """To the bit, so that -0.0 is not 0.0."""
    bits = [x.reshape(-1).view(torch.uint8) for x in (a, b)]
    return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(*bits)


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_has_the_same_bits_made_from_memory_and_from_a_file(fresh, kind: str) -> None:
    make = Counting(VALUES[kind])
    first = fresh()
    found = [first.get("k", make), first.get("k", make), fresh().get("k", make)]
    assert all(same(value, VALUES[kind]) for value in found)
    assert make.calls == 1


def test_each_key_has_a_value_of_its_own(fresh) -> None:
    for again in range(2):
        kept = fresh()
        for number, key in enumerate(("a", "b", "a|b", "")):
            assert kept.get(key, lambda number=number: torch.tensor(number)).item() == number
            assert kept.get(key, Counting(torch.tensor(-1))).item() == number, again


def test_memory_holds_as_much_as_it_says() -> None:
    """What is computed is far larger than what is kept of it, as a text's tokens are among the padding."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    kept, before = Memory(8 / 1024), 0
    for number in range(400):
        kept.get(str(number), lambda: torch.ones(64, 2**13)[:4])  # 128 KiB of 2 MiB
        before = before or resident()
    assert len(kept._known) == 64
    assert resident() - before < 16 * 2**20


def test_memory_gives_up_what_was_used_longest_ago() -> None:
    kept, make = Memory(3 * PAGE), Counting(torch.zeros(256))
    for key in ("a", "b", "c", "a", "d"):  # each a page; d takes the place of b
        kept.get(key, make)
    assert make.calls == 4
    for key in ("a", "c", "d"):
        kept.get(key, make)
    assert make.calls == 4
    kept.get("b", make)
    assert make.calls == 5
    large = torch.arange(mmap.PAGESIZE)  # handed out, though there is no room for it
    assert same(kept.get("too much", Counting(large)), large)
    assert kept._size <= 3 * mmap.PAGESIZE


def test_memory_holds_no_more_values_than_the_system_has_places_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST", 5)
    kept, make = Memory(), Counting(torch.zeros(1))
    for key in range(9):
        kept.get(str(key), make)
    for key in range(8, 3, -1):
        kept.get(str(key), make)
    assert make.calls == 9
    assert len(kept._known) == 5


def test_what_was_handed_out_stays_when_the_store_gives_it_up() -> None:
    kept = Memory(PAGE)
    first = kept.get("first", lambda: torch.arange(1000.0))
    for key in range(20):
        kept.get(str(key), lambda: torch.full((1000,), -1.0))
    assert same(first, torch.arange(1000.0))


def test_what_left_memory_is_read_from_its_file(fresh) -> None:
    kept, make = fresh(ram_gib=0), Counting(torch.ones(3))
    for _ in range(3):
        assert same(kept.get("k", make), torch.ones(3))
    assert make.calls == 1


def _bits(path: Path, where: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    **{f"a bit at {share}": lambda path, share=share: _bits(path, share) for share in (0, 0.02, 0.2, 0.5, 0.9, 1)},
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a byte too much": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: path.write_bytes(b""),
    "no tensors": lambda path: path.write_bytes(b"\x02\0\0\0\0\0\0\0{}"),
    "garbage": lambda path: path.write_bytes(b"no tensors" * 99),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_made_again_with_one_line(
    fresh, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    value = torch.arange(40.0)
    fresh().get("k", Counting(value))
    DAMAGE[how](paths(tmp_path)[0])
    make, kept = Counting(value), fresh()
    assert same(kept.get("k", make), value)
    assert make.calls == 1
    assert [record.getMessage().partition(" is damaged and made again: ")[0] for record in caplog.records] == [
        str(paths(tmp_path)[0])
    ]
    caplog.clear()
    assert same(fresh().get("k", make), value)
    assert (make.calls, caplog.records) == (1, [])


def test_a_file_that_the_disk_does_not_give_is_made_again(
    fresh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make = Counting(torch.ones(3))
    fresh().get("k", make)

    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert same(fresh().get("k", make), torch.ones(3))
    assert make.calls == 2
    [said] = [record.getMessage() for record in caplog.records]
    assert said.endswith(".reelign.safetensors is damaged and made again: Input/output error.")


def test_a_whole_file_under_another_ones_name_is_not_believed(fresh, tmp_path: Path) -> None:
    fresh().get("a", Counting(torch.tensor(1.0)))
    [first] = paths(tmp_path)
    fresh().get("b", Counting(torch.tensor(2.0)))
    [second] = set(paths(tmp_path)) - {first}
    shutil.copy(first, second)
    assert fresh().get("b", Counting(torch.tensor(2.0))).item() == 2


def test_what_is_no_file_stands_where_it_is(fresh, tmp_path: Path) -> None:
    fresh().get("k", Counting(torch.tensor(1.0)))
    [path] = paths(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    make = Counting(torch.tensor(1.0))
    assert fresh().get("k", make).item() == 1
    assert make.calls == 1
    assert path.is_symlink()
    path.unlink()
    os.mkfifo(path)  # a reader of it would wait for ever
    assert fresh().get("k", make).item() == 1


def _fill(kept: DiskStore, keys: range, size: int = 1024) -> None:
    for key in keys:
        kept.get(str(key), Counting(torch.full((size // 4,), float(key))))


def _age(folder: Path) -> None:
    """Let all that lies there have been used long ago, in an order that does not change."""
    for number, path in enumerate(sorted(folder.rglob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (1000 + number, 1000 + number))


def test_files_stay_within_their_bound_and_those_used_longest_ago_go(fresh, tmp_path: Path) -> None:
    bound = 20 * 1300 / store.GIB  # a file is 1 KiB and a header
    _fill(fresh(), range(15))
    _age(tmp_path)
    used = fresh(0, bound)
    for key in (0, 1, 2):  # used again
        used.get(str(key), Counting(torch.zeros(0)))
    _fill(used, range(15, 40))
    assert sum(path.stat().st_size for path in paths(tmp_path)) <= bound * store.GIB
    assert len(paths(tmp_path)) > 10
    gone = Counting(torch.zeros(256))
    fresh(0, 0).get("3", gone)
    assert gone.calls == 1
    fresh(0, 0).get("39", gone)
    assert gone.calls == 1


def test_only_files_that_carry_the_mark_are_removed(fresh, tmp_path: Path) -> None:
    _fill(fresh(), range(3))
    theirs = [
        paths(tmp_path)[0].parent / "notes.txt",
        tmp_path / "kept" / "clip.safetensors",
        paths(tmp_path)[0].with_name("0" * 64 + store.ENDING),
        paths(tmp_path)[0].with_name(f".mine.tmp-{'0' * 8}"),
    ]
    for path in theirs:
        path.write_bytes(b"somebody's" * 1000)
    _age(tmp_path)
    for path in theirs:
        os.utime(path, (0, 0))
    _fill(fresh(0, 3000 / store.GIB), range(10, 20))
    assert [path.read_bytes() for path in theirs] == [b"somebody's" * 1000] * 4


def test_half_written_files_of_killed_processes_go_and_those_of_running_ones_stay(fresh, tmp_path: Path) -> None:
    _fill(fresh(), range(1))
    [path] = paths(tmp_path)
    old, new = (path.with_name(f".{path.name}.tmp-{number * 8}") for number in "12")
    for left in (old, new):
        left.write_bytes(b"half")
    os.utime(old, (0, time.time() - 2 * store.STALE))
    _fill(fresh(), range(1, 2))
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_place_that_cannot_be_written_is_one_warning_and_memory_goes_on(
    fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    fresh().get("there", Counting(torch.ones(2)))
    there = paths(tmp_path)
    monkeypatch.setattr(store, "save_file", fail)
    monkeypatch.setattr(os, "utime", fail)
    kept, make = fresh(), Counting(torch.ones(2))
    for key in ("there", "a", "b", "a", "b"):
        assert same(kept.get(key, make), torch.ones(2))
    assert make.calls == 2
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"cannot write {tmp_path / 'kept'}")
    assert os.strerror(number) in said
    assert said.endswith("; until the next start what is encoded stays in main memory.")
    assert paths(tmp_path) == there


def test_a_disk_that_is_nearly_full_is_left_to_the_run(
    fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = store.SPARE + store.HEADER + 100
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**50, 2**50 - free, free))
    kept, make = fresh(), Counting(torch.ones(20))
    kept.get("fits", make)
    kept.get("does not", Counting(torch.ones(26)))
    assert len(paths(tmp_path)) == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_no_files_are_written_where_none_are_wanted(fresh, tmp_path: Path) -> None:
    fresh(disk_gib=0).get("k", Counting(torch.ones(2)))
    assert not (tmp_path / "kept").exists()


def test_processes_may_write_one_folder_at_a_time(fresh, tmp_path: Path, in_child: Callable[..., int]) -> None:
    def work() -> None:
        kept = fresh(0, 12 * 1300 / store.GIB)
        for again in range(3):
            for key in range(20):
                value = torch.full((256,), float(key))
                assert same(kept.get(str(key), Counting(value)), value), again

    codes: list[int] = []
    others = [threading.Thread(target=lambda: codes.append(in_child(work))) for _ in range(2)]
    for other in others:
        other.start()
    work()
    for other in others:
        other.join()
    assert codes == [0, 0]
    assert not any(files.is_left(path.name) for path in paths(tmp_path))


def test_threads_share_a_store() -> None:
    kept = Memory()
    values = [torch.full((10,), float(n)) for n in range(50)]
    wrong: list[int] = []

    def work() -> None:
        for n, value in enumerate(values * 4):
            if not same(kept.get(str(n % 50), value.clone), value):
                wrong.append(n)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert kept._size == 50 * mmap.PAGESIZE


def test_a_store_lies_where_its_config_says_else_below_the_runs_else_in_memory_alone(tmp_path: Path) -> None:
    for config, root, place in (
        (StoreConfig(path=str(tmp_path / "own")), tmp_path / "runs", "own"),
        (StoreConfig(path=str(tmp_path / "own")), None, "own"),
        (StoreConfig(), tmp_path / "runs", "runs"),
    ):
        store.opened(config, root).get("k", Counting(torch.ones(2)))
        assert [path.name for path in tmp_path.iterdir()] == [place]
        shutil.rmtree(tmp_path / place)
    store.opened(StoreConfig(), None).get("k", Counting(torch.ones(2)))
    assert list(tmp_path.iterdir()) == []


def test_a_fingerprint_changes_with_all_that_it_is_of_and_with_the_threads_of_a_cpu() -> None:
    cpu = torch.device("cpu")
    found = {store.fingerprint(cpu, *of) for of in ((), ("a",), ("b",), ("a", "b"), (("a", "b"),))}
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        found.add(store.fingerprint(cpu))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 6
    assert store.fingerprint(cpu, "a", 1) == store.fingerprint(cpu, "a", 1)
