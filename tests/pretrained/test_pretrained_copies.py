"""Copies share contents, not modes; a digest changes with what it is of."""

import os
from pathlib import Path

import pytest

from reelign import pretrained
from reelign.pretrained import copies


def test_small_files_are_copied_and_large_ones_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "LINKED", 10)
    for name in ("small", "large weights"):
        (tmp_path / name).write_text(name)
        pretrained.copy(tmp_path / name, tmp_path / f"{name} 2")
        assert (tmp_path / f"{name} 2").read_text() == name
    assert not os.path.samefile(tmp_path / "small", tmp_path / "small 2")
    assert os.path.samefile(tmp_path / "large weights", tmp_path / "large weights 2")


def test_a_read_only_file_is_copied_whatever_its_size_and_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "LINKED", 1)
    (tmp_path / "a").write_text("weights")
    (tmp_path / "a").chmod(0o444)
    pretrained.copy(tmp_path / "a", tmp_path / "b")
    assert not os.path.samefile(tmp_path / "a", tmp_path / "b")
    (tmp_path / "new").touch()
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_without_links_in_the_file_system_a_large_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(copies, "LINKED", 1)
    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_text("weights")
    pretrained.copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "weights"


def test_a_copy_resolves_links_replaces_what_was_there_and_survives_itself(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("weights")
    (tmp_path / "link").symlink_to("blob")
    (tmp_path / "target").write_text("old")
    pretrained.copy(tmp_path / "link", tmp_path / "target")
    assert not (tmp_path / "target").is_symlink()
    assert (tmp_path / "target").read_text() == "weights"
    pretrained.copy(tmp_path / "blob", tmp_path / "blob")
    assert (tmp_path / "blob").read_text() == "weights"


def test_a_digest_tells_sizes_and_contents_and_not_names(tmp_path: Path) -> None:
    def of(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return pretrained.digest(tmp_path / name)

    assert of("a", "weights") == of("b", "weights")
    assert len({of("a", text) for text in ("weights", "weightz", "weightsx", "")}) == 4


def test_of_a_large_file_a_digest_reads_the_header_and_places_all_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "WHOLE", 20)
    monkeypatch.setattr(copies, "SAMPLE", 16)
    file = tmp_path / "a.safetensors"

    def of(header: bytes, weights: bytes) -> str:
        file.write_bytes(len(header).to_bytes(8, "little") + header + weights)
        return pretrained.digest(file)

    weights = bytes(range(256)) * 40
    known = of(b"{header}", weights)
    assert known == of(b"{header}", weights)
    assert known != of(b"{HEADER}", weights)
    assert known != of(b"{header}", weights + b"!")
    assert known != of(b"{header}", bytes(len(weights)))
    assert known != of(b"{header}", weights[:5000] + bytes(len(weights) - 5000))
