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

from reelign.core import rng
from reelign.errors import BadCheckpoint, RunStopped
from reelign.runtime import checkpoint
from reelign.runtime.checkpoint import Checkpoint

MODEL = "0123456789ab"


def _content(step: int, size: int = 50) -> Checkpoint:
    tensors: dict[str, dict[str, Tensor]] = {
        "learner": {"weights/a": rng.normal((size,), seed=step), "optimizer/step/a": torch.tensor(float(step))},
        "reference": {"a": rng.normal((3, 4), seed=100 + step).bfloat16()},
    }
    return Checkpoint(tensors, {"stage": 1, "next": step, "entering": "base", "counts": {"clips": 3}})


def _save(root: Path, step: int, size: int = 50, keep: tuple[str, ...] = ()) -> Path:
    return checkpoint.save(root, f"sft-{step:05d}", MODEL, _content(step, size), keep)


def _assert_is(folder: Path | None, step: int, size: int = 50) -> None:
    assert folder is not None
    found, expected = checkpoint.load(folder, MODEL), _content(step, size)
    assert found.position == expected.position
    assert found.tensors.keys() == expected.tensors.keys()
    for group, tensors in expected.tensors.items():
        assert found.tensors[group].keys() == tensors.keys()
        for name, value in tensors.items():
            assert found.tensors[group][name].dtype == value.dtype
            assert torch.equal(found.tensors[group][name], value)


def test_what_is_saved_comes_back_bit_by_bit(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    folder = _save(tmp_path, 1)
    assert checkpoint.latest(tmp_path) == folder
    _assert_is(folder, 1)


def test_views_and_shared_tensors_can_be_saved(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    content = Checkpoint({"learner": {"a": whole.T, "b": whole[1]}}, {})
    found = checkpoint.load(checkpoint.save(tmp_path, "x", MODEL, content), MODEL)
    assert torch.equal(found.tensors["learner"]["a"], whole.T)


def test_a_new_checkpoint_replaces_the_older_ones_except_those_to_keep(tmp_path: Path) -> None:
    for step in (1, 2):
        _save(tmp_path, step, keep=("sft-00001",))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["LATEST", "sft-00001", "sft-00002"]
    _save(tmp_path, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["LATEST", "sft-00003"]


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
            found = checkpoint.load(folder, MODEL)
        except BadCheckpoint:
            continue
        # Changing a blank between two entries is no change.
        assert name == "state.json"
        assert raw[place : place + 1].isspace()
        assert found.position == _content(1).position
    (folder / name).write_bytes(raw)
    _assert_is(folder, 1)


def test_the_message_names_the_damaged_file(tmp_path: Path) -> None:
    folder = _save(tmp_path, 1)
    file = folder / "learner.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    with pytest.raises(BadCheckpoint, match=r"learner.safetensors' is damaged: its sha256.*Use an older checkpoint"):
        checkpoint.load(folder, MODEL)


@pytest.mark.parametrize("name", ["learner.safetensors", "state.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, share: float) -> None:
    folder = _save(tmp_path, 1)
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(BadCheckpoint, match=r"is damaged"):
        checkpoint.load(folder, MODEL)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    folder = _save(tmp_path, 1)
    (folder / "reference.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"lacks reference.safetensors; the copy is incomplete"):
        checkpoint.load(folder, MODEL)
    (folder / "state.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"is no checkpoint: it has no state.json"):
        checkpoint.load(folder, MODEL)


def test_a_missing_checkpoint_is_not_taken_for_a_fresh_start(tmp_path: Path) -> None:
    shutil.rmtree(_save(tmp_path, 1))
    with pytest.raises(BadCheckpoint, match=r"sft-00001' is gone, but .*LATEST' names it"):
        checkpoint.latest(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    folder = _save(tmp_path, 1)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({"schema": 9, "later": state}))
    with pytest.raises(BadCheckpoint, match=r"has schema 9, but this version reads up to 1; update Reelign"):
        checkpoint.load(folder, MODEL)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"made for another model \(weights 0123456789ab, here beef\)"):
        checkpoint.load(_save(tmp_path, 1), "beef")


def test_the_fingerprint_follows_names_and_shapes() -> None:
    weights = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    print_ = checkpoint.fingerprint(weights)
    assert checkpoint.fingerprint({name: w + 1 for name, w in weights.items()}) == print_
    assert checkpoint.fingerprint({"a": torch.zeros(3, 2), "b": torch.zeros(4)}) != print_
    assert checkpoint.fingerprint({"a": torch.zeros(2, 3), "c": torch.zeros(4)}) != print_


@pytest.mark.parametrize("suffix", checkpoint.PICKLES)
def test_pickles_are_refused_before_anything_is_read(tmp_path: Path, suffix: str) -> None:
    folder = _save(tmp_path, 1)
    (folder / f"weights{suffix}").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(BadCheckpoint, match=r"pickled weights, which can run code when loaded"):
        checkpoint.load(folder, MODEL)
    with pytest.raises(BadCheckpoint, match=r"pickled weights"):
        checkpoint.load(tmp_path / f"model{suffix}", MODEL)


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
        patch.setattr(checkpoint, "write_text", full(checkpoint.write_text))
        with pytest.raises(
            RunStopped, match=r"disk is full while saving '.*sft-00002'; the checkpoint 'sft-00001' is intact.*--resume"
        ):
            _save(tmp_path, 2)
    left = _files(tmp_path)
    assert {name: left[name] for name in before} == before
    assert not [name for name in left if ".tmp-" in name]
    _assert_is(checkpoint.latest(tmp_path), 1)
    _save(tmp_path, 2)
    _assert_is(checkpoint.latest(tmp_path), 2)


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
    with pytest.raises(RunStopped, match=r"disk is full"):
        _save(tiny_disk, 2, size=400_000)  # 1.6 MB beside it do not fit
    assert _files(tiny_disk) == before
    _assert_is(checkpoint.latest(tiny_disk), 1, 200_000)
    _save(tiny_disk, 2, size=200_000)
    _assert_is(checkpoint.latest(tiny_disk), 2, 200_000)


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(OSError, match="Input/output error"):
        _save(tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_a_kill_at_any_moment_of_a_save_leaves_a_checkpoint_that_loads(
    tmp_path: Path, in_child: Callable[[Callable[[], object]], int]
) -> None:
    """The child dies by SIGKILL before its first, second, ... change of the disk, until it gets through."""
    outcomes = []
    for moment in range(100):
        root = tmp_path / str(moment)
        _save(root, 1)

        def work(root: Path = root, moment: int = moment) -> None:
            calls = iter(range(100))

            def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
                def wrapper(*args: Any, **kwargs: Any) -> Any:
                    if next(calls) == moment:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*args, **kwargs)

                return wrapper

            checkpoint.save_file = deadly(checkpoint.save_file)
            checkpoint._finish = deadly(checkpoint._finish)
            shutil.rmtree = deadly(shutil.rmtree)
            for name in ("mkdir", "rename", "replace", "write_text"):
                setattr(Path, name, deadly(getattr(Path, name)))
            _save(root, 2)

        code = in_child(work)
        assert code in (0, -signal.SIGKILL)
        found = checkpoint.latest(root)
        assert found is not None
        outcomes.append(found.name)
        _assert_is(found, 1 if found.name == "sft-00001" else 2)
        _save(root, 3)
        _assert_is(checkpoint.latest(root), 3)
        assert sorted(p.name for p in root.iterdir() if p.is_dir()) == ["sft-00003"]
        if code == 0:
            break
    assert outcomes[0] == "sft-00001"
    assert outcomes[-1] == "sft-00002"
    assert len(outcomes) > 8  # there were that many moments
