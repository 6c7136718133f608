"""Which files a part's weights are, and what is said of files that will not do; no weight is read."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reelign import pretrained
from reelign.errors import BadCheckpoint
from reelign.pretrained import headers

STEM = "model"


def _save(folder: Path, name: str = "model.safetensors", **tensors: torch.Tensor) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors or {"a": torch.zeros(2, 3)}, folder / name, metadata={"format": "pt"})
    return folder / name


def _index(folder: Path, name: str = "model.safetensors.index.json", **mapped: object) -> None:
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": mapped}))


def test_a_header_gives_names_dtypes_and_shapes(tmp_path: Path) -> None:
    _save(tmp_path, a=torch.zeros(2, 3, dtype=torch.bfloat16), b=torch.zeros((), dtype=torch.float8_e4m3fn))
    found = headers.find(tmp_path, STEM)
    assert found.tensors["a"] == headers.Stored("model.safetensors", "BF16", (2, 3))
    assert found.tensors["b"] == headers.Stored("model.safetensors", "F8_E4M3", ())
    assert (found.variant, found.index, found.files) == (None, None, ("model.safetensors",))


def test_shards_are_read_as_their_index_says(tmp_path: Path) -> None:
    _save(tmp_path, "model-00001-of-00002.safetensors", a=torch.zeros(1))
    _save(tmp_path, "model-00002-of-00002.safetensors", b=torch.zeros(2))
    _index(tmp_path, a="model-00001-of-00002.safetensors", b="model-00002-of-00002.safetensors")
    found = headers.find(tmp_path, STEM)
    assert {name: (s.file[6:11], s.shape) for name, s in found.tensors.items()} == {
        "a": ("00001", (1,)),
        "b": ("00002", (2,)),
    }


def test_the_only_variant_is_taken_and_the_plain_files_before_any(tmp_path: Path) -> None:
    _save(tmp_path, "model.fp16.safetensors")
    only = headers.find(tmp_path, STEM)
    assert (only.variant, only.files, only.plain(only.files[0])) == (
        "fp16",
        ("model.fp16.safetensors",),
        "model.safetensors",
    )
    _save(tmp_path)
    both = headers.find(tmp_path, STEM)
    assert (both.variant, both.files, both.passed_over) == (None, ("model.safetensors",), ("fp16",))


def test_shards_of_a_variant_lose_it_in_their_plain_names(tmp_path: Path) -> None:
    _save(tmp_path, "model.fp16-00001-of-00001.safetensors")
    _index(tmp_path, "model.safetensors.index.fp16.json", a="model.fp16-00001-of-00001.safetensors")
    found = headers.find(tmp_path, STEM)
    assert found.variant == "fp16"
    assert found.plain(found.files[0]) == "model-00001-of-00001.safetensors"
    assert found.plain(str(found.index)) == "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), r"has no weights; Reelign loads \*\.safetensors only"),
        (("pytorch_model.bin",), r"only pickled weights \(pytorch_model.bin\), which can run code"),
        (("wan-Q4.gguf",), r"only weights in the GGUF format \(wan-Q4.gguf\)"),
        (("other.safetensors",), r"has other.safetensors, but no model.safetensors and no index of shards"),
        (("model-00001-of-00002.safetensors",), r"has model-00001-of-00002.safetensors, but no model.safetensors"),
        (("model.fp16.safetensors", "model.bf16.safetensors"), r"has the variants bf16 and fp16 .*keep one"),
        (("model.safetensors", "model.safetensors.index.json"), r"has both model.safetensors and .*keep one"),
    ],
)
def test_a_folder_without_the_weights_that_are_meant(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadCheckpoint, match=said):
        headers.find(tmp_path, STEM)


@pytest.mark.parametrize("file", ["evil.bin", "../model.safetensors", "/tmp/a.safetensors", ".a.safetensors", 3, None])
def test_an_index_names_safetensors_files_beside_it_only(tmp_path: Path, file: object) -> None:
    _save(tmp_path, "x.safetensors")
    _index(tmp_path, a=file)
    with pytest.raises(BadCheckpoint, match=r"names .*; weights are read from \*\.safetensors files beside it only"):
        headers.find(tmp_path, STEM)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_a_map(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(BadCheckpoint, match="has no weight_map"):
        headers.find(tmp_path, STEM)


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    _save(tmp_path, "one.safetensors")
    _index(tmp_path, a="one.safetensors", b="two.safetensors")
    with pytest.raises(BadCheckpoint, match=r"has no .*/two.safetensors; its download may be incomplete"):
        headers.find(tmp_path, STEM)


def test_an_index_that_its_shards_do_not_bear_out(tmp_path: Path) -> None:
    _save(tmp_path, "one.safetensors")
    _index(tmp_path, a="one.safetensors", b="one.safetensors")
    with pytest.raises(BadCheckpoint, match="does not say what its shards hold"):
        headers.find(tmp_path, STEM)


def test_a_weight_in_two_shards(tmp_path: Path) -> None:
    _save(tmp_path, "one.safetensors")
    _save(tmp_path, "two.safetensors")
    _index(tmp_path, a="one.safetensors", b="two.safetensors")
    with pytest.raises(BadCheckpoint, match=r"has the weight 'a' twice, in one.safetensors and two.safetensors"):
        headers.find(tmp_path, STEM)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-4],
        lambda data: data + b"more",
        lambda data: (1 << 40).to_bytes(8, "little") + data[8:],
        lambda data: b"",
        lambda data: b"junk",
        lambda data: b"\x80\x02}q\x00." + data,
        lambda data: data.replace(b'"F32"', b'"F99"'),
    ],
    ids=["cut", "longer", "header of a terabyte", "empty", "junk", "pickle", "no dtype"],
)
def test_a_damaged_file_is_known_from_its_header(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    file = _save(tmp_path)
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(BadCheckpoint, match=r"model.safetensors' cannot be read as safetensors \(.*\); it is damaged"):
        headers.find(tmp_path, STEM)


def test_weights_of_another_framework(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "flax"})
    with pytest.raises(BadCheckpoint, match="holds weights of 'flax', but PyTorch's are needed"):
        headers.find(tmp_path, STEM)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_fifo, "is no regular file; a model folder holds files"),
        (Path.mkdir, "is no regular file"),
        (_loop, "cannot be read: it is a loop of links"),
        (lambda path: path.symlink_to("gone"), "is a link to 'gone', which is not there; copy the folder with what"),
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
            "is a git-lfs pointer.*lfs pull",
        ),
    ],
    ids=["fifo", "folder", "loop", "dangling", "lfs"],
)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_is_no_file_is_told_at_once(tmp_path: Path, name: str, make: Callable[[Path], None], said: str) -> None:
    make(tmp_path / name)
    with pytest.raises(BadCheckpoint, match=rf"{name}' {said}"):
        pretrained.read_json(tmp_path / name) if name.endswith("json") else headers.find(tmp_path, STEM)


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "model.safetensors").symlink_to(_save(tmp_path / "blobs"))
    assert headers.find(tmp_path / "link", STEM).tensors["a"].shape == (2, 3)


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"a": NaN}', '{"a": ' + "[" * 100_000, '{"a": ' + "9" * 5000 + "}", "\udce9"]
)
def test_json_that_is_no_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadCheckpoint, match=r"config.json' (is not valid JSON|holds a JSON list)"):
        pretrained.read_json(tmp_path / "config.json")


def test_a_path_may_start_at_home_and_an_impossible_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pretrained.locate("~/wan") == tmp_path / "wan"
    for given in ("x" * 5000, "a\0b", "~nobody-of-that-name/wan"):
        with pytest.raises(BadCheckpoint, match=r"cannot be opened: .*; give a local folder") as caught:
            pretrained.locate(given)
        assert len(str(caught.value)) < 400
