"""Files and folders that are whole or absent, whatever happens in between."""

import errno
import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from reelign import files
from reelign.errors import CannotWrite

InChild = Callable[[Callable[[], object]], int]


def _fill(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "a.txt").write_text(text)
    (folder / "inner").mkdir()
    (folder / "inner" / "b.txt").write_text(text)


def _texts(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.rglob("*.txt")}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with files.replacing_folder(tmp_path / "it") as temporary:
            _fill(temporary, text)
            assert not (tmp_path / "it").exists() or _texts(tmp_path / "it") == {"old"}
    assert _texts(tmp_path / "it") == {"new"}
    assert [p.name for p in tmp_path.iterdir()] == ["it"]


def test_a_folder_that_cannot_be_filled_leaves_the_old_one(tmp_path: Path) -> None:
    _fill(tmp_path / "it", "old")

    def fill() -> None:
        with files.replacing_folder(tmp_path / "it") as temporary:
            _fill(temporary, "new")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CannotWrite, match=r"cannot write .*it: No space left on device; make room there or choose"):
        fill()
    assert _texts(tmp_path / "it") == {"old"}
    assert [p.name for p in tmp_path.iterdir()] == ["it"]


def test_a_read_only_folder_is_replaced(tmp_path: Path) -> None:
    _fill(tmp_path / "it", "old")
    for each in (tmp_path / "it" / "inner", tmp_path / "it"):
        each.chmod(0o500)
    with files.replacing_folder(tmp_path / "it") as temporary:
        _fill(temporary, "new")
    assert _texts(tmp_path / "it") == {"new"}
    assert [p.name for p in tmp_path.iterdir()] == ["it"]


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path: Path) -> None:
    _fill(tmp_path / "theirs", "theirs")
    (tmp_path / "it").symlink_to("theirs")
    with files.replacing_folder(tmp_path / "it") as temporary:
        _fill(temporary, "new")
    assert _texts(tmp_path / "theirs") == {"theirs"}
    assert not (tmp_path / "it").is_symlink()


def test_a_kill_at_any_moment_leaves_a_whole_folder(tmp_path: Path, in_child: InChild) -> None:
    seen = []
    for moment in range(40):
        root = tmp_path / str(moment)
        root.mkdir()
        _fill(root / "it", "old")

        def work(root: Path = root, moment: int = moment) -> None:
            calls = iter(range(100))

            def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
                def wrapper(*args: Any, **kwargs: Any) -> Any:
                    if next(calls) == moment:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*args, **kwargs)

                return wrapper

            files.sync, files.shutil.rmtree = deadly(files.sync), deadly(files.shutil.rmtree)
            Path.rename = deadly(Path.rename)
            with files.replacing_folder(root / "it") as temporary:
                _fill(temporary, "new")

        code = in_child(work)
        files.sweep([root])
        assert [p.name for p in root.iterdir()] == ["it"]
        seen.append(_texts(root / "it"))
        assert seen[-1] in ({"old"}, {"new"})
        if code == 0:
            break
    assert seen[0] == {"old"}
    assert seen[-1] == {"new"}
    assert len(seen) > 6


def test_only_what_was_left_half_written_is_swept(tmp_path: Path) -> None:
    theirs = [".note.tmp-old", ".draft.tmp-7", "a.tmp-01234567", ".x.tmp-0123456G", ".it.tmp-0123456", "it"]
    for name in theirs:
        (tmp_path / name).write_text("mine")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / ".it.tmp-01234567").write_text("not looked at")
    (tmp_path / ".it.tmp-01234567").write_text("ours")
    _fill(tmp_path / ".folder.tmp-89abcdef", "ours")
    _fill(tmp_path / ".gone.old-89abcdef", "stepped aside, and nothing came")
    (tmp_path / ".it.old-89abcdef").write_text("stepped aside for it")
    files.sweep([tmp_path, tmp_path / "not there"])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*theirs, "inner", "gone"])
    assert _texts(tmp_path / "gone") == {"stepped aside, and nothing came"}
    assert (tmp_path / "inner" / ".it.tmp-01234567").exists()


def test_half_an_emoji_in_a_json_file_is_not_lost(tmp_path: Path) -> None:
    content = {"prompt": "a ball \ud83d", "label": "качество"}
    files.write_text(tmp_path / "a.json", json.dumps(content, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_bytes()) == content


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF])
def test_a_file_system_that_cannot_sync_folders_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.fsync

    def fsync(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(number, os.strerror(number))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_text(tmp_path / "a.txt", "done")
    with files.replacing_folder(tmp_path / "it") as temporary:
        _fill(temporary, "done")
    assert _texts(tmp_path) == {"done"}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_file_that_cannot_be_synced_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fsync(file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CannotWrite, match=r"cannot write .*a\.txt: .*; look at that disk or choose another place\."):
        files.write_text(tmp_path / "a.txt", "done")
    assert not list(tmp_path.iterdir())


def test_what_the_writer_of_safetensors_says_is_understood(tmp_path: Path) -> None:
    full = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(CannotWrite, match=r"x: No space left on device; make room"), files.writing(tmp_path / "x"):
        raise SafetensorError(full)
    with pytest.raises(SafetensorError, match="a header"), files.writing(tmp_path / "x"):
        raise SafetensorError("a header that is none")


def test_nothing_is_appended_through_a_link_or_to_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "link").symlink_to("theirs")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError, match=r"symbolic links|No such device"):
            files.append(tmp_path / name, b"ours")
    assert (tmp_path / "theirs").read_text() == "theirs"


def test_moving_aside_takes_the_first_free_name(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / "rows.jsonl").write_text(text)
        files.aside(tmp_path / "rows.jsonl")
    assert [(tmp_path / f"rows.aside-{n}.jsonl").read_text() for n in (1, 2)] == ["first", "second"]
    assert not (tmp_path / "rows.jsonl").exists()


def test_removing_does_not_follow_links(tmp_path: Path) -> None:
    _fill(tmp_path / "theirs", "theirs")
    _fill(tmp_path / "ours", "ours")
    (tmp_path / "ours" / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "ours" / "file-link").symlink_to(tmp_path / "theirs" / "a.txt")
    files.remove(tmp_path / "ours")
    assert [p.name for p in tmp_path.iterdir()] == ["theirs"]
    assert _texts(tmp_path / "theirs") == {"theirs"}


def test_a_folder_that_is_discarded_has_no_name_any_more_when_it_loses_its_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: Path) -> None:
        raise SystemExit

    _fill(tmp_path / "folder", "ours")
    monkeypatch.setattr(files, "remove", killed)
    with pytest.raises(SystemExit):
        files.discard(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    monkeypatch.undo()
    files.sweep([tmp_path])
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_refreshed_is_old_or_new_and_makes_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    for text in ("first", "second"):
        files.refresh(path, text)
        assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
        assert path.read_text() == text
    with pytest.raises(FileNotFoundError):
        files.refresh(tmp_path / "gone" / "run.json", "third")
    assert not (tmp_path / "gone").exists()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        files.refresh(tmp_path / "folder", "third")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "run.json"]
