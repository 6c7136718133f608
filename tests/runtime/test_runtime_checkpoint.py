"""Checkpoints are whole or absent, and what is damaged, unsafe or of another model is refused in a sentence."""

import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reelign import files
from reelign.core import rng
from reelign.errors import BadCheckpoint, CannotWrite
from reelign.runtime import checkpoint
from reelign.runtime.checkpoint import Checkpoint, Store
from reelign.runtime.header import PICKLES

MODEL = "0123456789ab"


def _content(step: int, size: int = 50) -> Checkpoint:
    tensors: dict[str, dict[str, Tensor]] = {
        "learner": {"weights/a": rng.normal((size,), seed=step), "optimizer/step/a": torch.tensor(float(step))},
        "reference": {"a": rng.normal((3, 4), seed=100 + step).bfloat16()},
    }
    return Checkpoint(tensors, {"stage": 1, "next": step, "entering": "base", "counts": {"clips": 3}})


def _store(root: Path) -> Store:
    return Store(root, "this run")


def _save(root: Path, step: int, size: int = 50, needs: tuple[str, ...] = ()) -> Path:
    content = _content(step, size)
    return _store(root).save(f"sft-{step:05d}", MODEL, Checkpoint(content.tensors, content.position, needs))


def _load(folder: Path) -> Checkpoint:
    return _store(folder.parent).load(folder.name, MODEL)


def _newest(root: Path) -> Checkpoint:
    found = _store(root).newest(MODEL)
    assert found is not None
    return found[0]


def _assert_is(found: Checkpoint, step: int, size: int = 50) -> None:
    expected = _content(step, size)
    assert found.position == expected.position
    assert found.tensors.keys() == expected.tensors.keys()
    for group, tensors in expected.tensors.items():
        assert found.tensors[group].keys() == tensors.keys()
        for name, value in tensors.items():
            assert found.tensors[group][name].dtype == value.dtype
            assert torch.equal(found.tensors[group][name], value)


def test_what_is_saved_comes_back_bit_by_bit(tmp_path: Path) -> None:
    assert _store(tmp_path).newest(MODEL) is None
    folder = _save(tmp_path, 1)
    _assert_is(_load(folder), 1)
    _assert_is(_newest(tmp_path), 1)


def test_all_files_have_the_mode_of_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = _save(tmp_path, 1)
    finally:
        os.umask(before)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == dict.fromkeys(
        ("learner.safetensors", "reference.safetensors", "state.json"), "0o640"
    )


def test_views_and_shared_tensors_can_be_saved(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    content = Checkpoint({"learner": {"a": whole.T, "b": whole[1]}}, {})
    found = _load(_store(tmp_path).save("x", MODEL, content))
    assert torch.equal(found.tensors["learner"]["a"], whole.T)


def _names(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir())


def test_the_two_newest_stay_with_what_they_need(tmp_path: Path) -> None:
    for step, needs in ((1, ()), (2, ()), (3, ("sft-00001",)), (4, ())):
        _save(tmp_path, step, needs=needs)
    # 4 and 3, and 1 for 3; 2 was needed by none.
    assert _names(tmp_path) == ["sft-00001", "sft-00003", "sft-00004"]
    _save(tmp_path, 5)
    assert _names(tmp_path) == ["sft-00004", "sft-00005"]


def test_the_newest_is_the_last_one_saved_whatever_its_name(tmp_path: Path) -> None:
    for step in (7, 3):
        _save(tmp_path, step)
    _assert_is(_newest(tmp_path), 3)
    _save(tmp_path, 7)
    _assert_is(_newest(tmp_path), 7)


def test_one_that_cannot_be_read_for_a_moment_stays_older_than_the_next(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for step in (1, 2):
        store.save(f"sft-{step:05d}", MODEL, _content(step))
    state = tmp_path / "sft-00002" / "state.json"
    content = state.read_bytes()
    state.write_bytes(b"")
    store.save("a", MODEL, _content(3))
    state.write_bytes(content)
    _assert_is(_newest(tmp_path), 3)


def test_what_others_put_beside_checkpoints_stays(tmp_path: Path) -> None:
    copy = shutil.copytree(_save(tmp_path, 1), tmp_path / "my-copy")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    for step in (2, 3, 4):
        _save(tmp_path, step)
    assert _names(tmp_path) == ["my-copy", "notes", "sft-00003", "sft-00004"]
    assert (copy / "state.json").exists()
    _assert_is(_newest(tmp_path), 4)
    _store(tmp_path).clear()
    assert _names(tmp_path) == ["my-copy", "notes"]


def test_a_checkpoint_of_another_run_is_neither_taken_nor_removed(tmp_path: Path) -> None:
    Store(tmp_path, "another").save("sft-00009", MODEL, _content(9))
    _save(tmp_path, 1)
    with pytest.raises(BadCheckpoint, match=r"sft-00009' is a checkpoint of another run; move it out of there"):
        _store(tmp_path).newest(MODEL)
    for step in (2, 3):
        _save(tmp_path, step)
    assert _names(tmp_path) == ["sft-00002", "sft-00003", "sft-00009"]


@pytest.mark.parametrize("name", ["learner.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["cut", "gone", "flipped", "folder"])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, name: str, how: str) -> None:
    _save(tmp_path, 1)
    file = _save(tmp_path, 2) / name
    raw = file.read_bytes()
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how != "gone":
        file.write_bytes(raw[:-40] if how == "cut" else raw[:-20] + bytes([raw[-20] ^ 1]) + raw[-19:])
    store = _store(tmp_path)
    found = store.newest(MODEL)
    assert found is not None
    _assert_is(found[0], 1)
    (said,) = found[1]
    assert said.count(".") <= 8
    assert "sft-00002" in said
    # It stays where it is, and does not push a good one out.
    store.save("sft-00004", MODEL, _content(4))
    assert _names(tmp_path) == ["sft-00001", "sft-00002", "sft-00004"]
    store.save("sft-00002", MODEL, _content(2))
    _assert_is(_newest(tmp_path), 2)


def test_without_one_that_verifies_nothing_is_started_over(tmp_path: Path) -> None:
    for step in (1, 2):
        (_save(tmp_path, step) / "learner.safetensors").write_bytes(b"")
    with pytest.raises(BadCheckpoint, match=r"is damaged: .*; none before it is left, so restore it or start a new"):
        _store(tmp_path).newest(MODEL)
    assert _names(tmp_path) == ["sft-00001", "sft-00002"]


def test_nothing_is_pickled(tmp_path: Path) -> None:
    folder = _save(tmp_path, 1)
    assert sorted(p.name for p in folder.iterdir()) == ["learner.safetensors", "reference.safetensors", "state.json"]


@pytest.mark.parametrize("name", ["learner.safetensors", "reference.safetensors", "state.json"])
def test_one_changed_bit_anywhere_is_noticed(tmp_path: Path, name: str) -> None:
    folder = _save(tmp_path, 1)
    raw = (folder / name).read_bytes()
    # Every byte of the small state, and a spread of them in the tensors.
    for place in range(0, len(raw), 1 if name == "state.json" else 37):
        changed = bytearray(raw)
        changed[place] ^= 1
        (folder / name).write_bytes(bytes(changed))
        try:
            found = _load(folder)
        except BadCheckpoint:
            continue
        # Changing a blank between two entries is no change.
        assert name == "state.json"
        assert raw[place : place + 1].isspace()
        assert found.position == _content(1).position
    (folder / name).write_bytes(raw)
    _assert_is(_load(folder), 1)


def test_the_message_names_the_damaged_file(tmp_path: Path) -> None:
    folder = _save(tmp_path, 1)
    file = folder / "learner.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    with pytest.raises(BadCheckpoint, match=r"learner.safetensors' is damaged: its sha256 is not the one in"):
        _load(folder)


@pytest.mark.parametrize("name", ["learner.safetensors", "state.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, share: float) -> None:
    folder = _save(tmp_path, 1)
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(BadCheckpoint, match=r"is damaged"):
        _load(folder)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    folder = _save(tmp_path, 1)
    (folder / "reference.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"lacks reference.safetensors"):
        _load(folder)
    (folder / "state.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"is no checkpoint: it has no state.json"):
        _load(folder)


@pytest.mark.parametrize(
    ("schema", "hint"), [(9, "update it"), (1, "finish the run with the version it was started with")]
)
def test_another_schema_is_refused(tmp_path: Path, schema: int, hint: str) -> None:
    folder = _save(tmp_path, 1)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({"schema": schema, "other": state}))
    with pytest.raises(BadCheckpoint, match=rf"has schema {schema}, but this version of Reelign reads 2; {hint}\."):
        _store(tmp_path).newest(MODEL)


@pytest.mark.parametrize("schema", [0, -1, True, "2", None])
def test_what_is_no_schema_is_damage(tmp_path: Path, schema: object) -> None:
    folder = _save(tmp_path, 1)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "schema": schema}))
    with pytest.raises(BadCheckpoint, match=r"state.json' is damaged"):
        _load(folder)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"made for another model \(weights 0123456789ab, here beef\)"):
        _store(tmp_path).load(_save(tmp_path, 1).name, "beef")


def test_the_fingerprint_follows_names_and_shapes() -> None:
    weights = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    print_ = checkpoint.fingerprint(weights)
    assert checkpoint.fingerprint({name: w + 1 for name, w in weights.items()}) == print_
    assert checkpoint.fingerprint({"a": torch.zeros(3, 2), "b": torch.zeros(4)}) != print_
    assert checkpoint.fingerprint({"a": torch.zeros(2, 3), "c": torch.zeros(4)}) != print_


@pytest.mark.parametrize("suffix", PICKLES)
def test_pickles_are_refused_before_anything_is_read(tmp_path: Path, suffix: str) -> None:
    folder = _save(tmp_path, 1)
    (folder / f"weights{suffix}").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(BadCheckpoint, match=r"pickled weights \(weights\..*\), which can run code when loaded"):
        _load(folder)


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("call", range(4))
def test_a_full_disk_leaves_the_checkpoint_before_and_a_retry_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """The disk is full at the first, second, ... file that a save writes."""
    _save(tmp_path, 1)
    before, calls = _files(tmp_path), iter(range(100))

    def full(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == call:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full(checkpoint.save_file))
        patch.setattr(Path, "write_text", full(Path.write_text))
        patch.setattr(files, "sync", full(files.sync))
        with pytest.raises(CannotWrite, match=r"cannot write .*sft-00002: No space left on device; make room there"):
            _save(tmp_path, 2)
    left = _files(tmp_path)
    assert {name: left[name] for name in before} == before
    assert not [name for name in left if ".tmp-" in name]
    _assert_is(_newest(tmp_path), 1)
    _save(tmp_path, 2)
    _assert_is(_newest(tmp_path), 2)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(tiny_disk: Path) -> None:
    _save(tiny_disk, 1, size=200_000)  # 0.8 MB
    before = _files(tiny_disk)
    with pytest.raises(CannotWrite, match=r"No space left on device; make room there"):
        _save(tiny_disk, 2, size=400_000)  # 1.6 MB beside it do not fit
    assert _files(tiny_disk) == before
    _assert_is(_newest(tiny_disk), 1, 200_000)
    _save(tiny_disk, 2, size=200_000)
    _assert_is(_newest(tiny_disk), 2, 200_000)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.EIO, "Input/output error; look at that disk"),
        (errno.EROFS, "Read-only file system; make it writable"),
        (errno.ENOENT, "No such file or directory; its folder is gone: put it back"),
    ],
)
def test_the_sentence_says_why_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(CannotWrite, match=sentence):
        _save(tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_a_read_only_checkpoint_can_be_replaced_and_pruned(tmp_path: Path) -> None:
    folder = _save(tmp_path, 1)
    for each in (*folder.iterdir(), folder):
        each.chmod(0o500)
    for step in (1, 2, 3):
        _save(tmp_path, step)
    assert _names(tmp_path) == ["sft-00002", "sft-00003"]


def test_pruning_takes_what_a_kill_has_kept_a_save_from_removing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(Store, "prune", lambda _: None)
        for step in range(4):
            _save(tmp_path, step)
    _store(tmp_path).prune()
    assert _names(tmp_path) == ["sft-00002", "sft-00003"]


def test_a_kill_at_any_moment_of_a_save_leaves_a_checkpoint_that_loads(
    tmp_path: Path, in_child: Callable[[Callable[[], object]], int]
) -> None:
    """The child dies by SIGKILL before its first, second, ... change of the disk, until it gets through."""
    outcomes = []
    for moment in range(100):
        root = tmp_path / str(moment)
        for step in (0, 1):
            _save(root, step)

        def work(root: Path = root, moment: int = moment) -> None:
            calls = iter(range(100))

            def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
                def wrapper(*args: Any, **kwargs: Any) -> Any:
                    if next(calls) == moment:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*args, **kwargs)

                return wrapper

            checkpoint.save_file = deadly(checkpoint.save_file)
            files.sync = deadly(files.sync)
            shutil.rmtree = deadly(shutil.rmtree)
            for name in ("mkdir", "rename", "replace", "write_text"):
                setattr(Path, name, deadly(getattr(Path, name)))
            _save(root, 2)

        code = in_child(work)
        assert code in (0, -signal.SIGKILL)
        files.sweep([root])
        found = _newest(root)
        outcomes.append(found.position["next"])
        _assert_is(found, outcomes[-1])
        for step in (3, 4):
            _save(root, step)
        _assert_is(_newest(root), 4)
        assert _names(root) == ["sft-00003", "sft-00004"]
        if code == 0:
            break
    assert outcomes[0] == 1
    assert outcomes[-1] == 2
    assert len(outcomes) > 8  # there were that many moments
