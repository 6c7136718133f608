"""What a run leaves behind loads in stock diffusers, without Reelign."""

import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from reelign.batches import requests
from reelign.core import rng
from reelign.errors import BadCheckpoint, RunStopped
from reelign.models import wan as family
from reelign.pretrained import copies
from reelign.weights import trainable

Make = Callable[..., Any]
LORA = {"name": "lora", "rank": 4, "alpha": 10.0}
PACKAGED = {"weights": "playground", "size": None, "text_length": None}


def _moved(model: Any) -> Any:
    with torch.no_grad():
        for i, p in enumerate(trainable(model.network).values()):
            p += 0.05 * rng.normal(p.shape, seed=i)
    return model


def _elsewhere(program: str, *words: object) -> dict[str, Any]:
    """Run a program in a fresh interpreter in which nothing of Reelign may be imported."""
    head = "import json, sys, warnings; warnings.simplefilter('ignore'); import torch; torch.set_num_threads(1)\n"
    tail = "\nassert not [m for m in sys.modules if m.split('.')[0] == 'reelign'], 'reelign was imported'"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(program) + tail, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_stock_diffusers_loads_the_packaged_generators_export_and_samples(wan: Make, tmp_path: Path) -> None:
    model = _moved(wan(**PACKAGED))
    model.export(tmp_path / "final")
    program = """
        from diffusers import WanPipeline
        pipe = WanPipeline.from_pretrained(sys.argv[1], vae=None)
        pipe.set_progress_bar_config(disable=True)
        frames, height, width, length = map(int, sys.argv[2:])
        out = pipe("A red circle moves right.", output_type="latent", max_sequence_length=length, num_frames=frames,
                   height=height, width=width, num_inference_steps=2).frames
        sums = {n: float(p.double().abs().sum()) for n, p in sorted(pipe.transformer.state_dict().items())}
        print(json.dumps({"shape": list(out.shape), "finite": bool(torch.isfinite(out).all()), "sums": sums}))
    """
    made = model.geometry
    length = model.text.padded(()).shape[1]
    found = _elsewhere(program, tmp_path / "final", made.frames, made.height, made.width, length)
    assert found["shape"] == [1, *model.geometry.latent]
    assert found["finite"]
    assert found["sums"] == {n: float(p.half().double().abs().sum()) for n, p in model.network.state_dict().items()}


@pytest.mark.slow
def test_stock_diffusers_reads_the_merged_export_and_the_adapter_beside_it(
    wan: Make, tiny_wan21: Path, tmp_path: Path
) -> None:
    model = _moved(wan(adapter=LORA))
    x, sigma, condition = (
        rng.normals([1, 2], model.geometry.latent),
        torch.tensor([0.8, 0.3]),
        model.encode(requests(["a", "b"])),
    )
    with torch.no_grad():
        expected = model.velocity(x, sigma, condition)
    model.export(tmp_path / "final")
    text = model.text.padded(condition.values["text"])
    torch.save({"x": x, "t": 1000 * sigma, "c": text, "expected": expected}, tmp_path / "inputs")
    program = """
        from diffusers import WanPipeline
        final, base, inputs = sys.argv[1:]
        given = torch.load(inputs, weights_only=True)
        def gap(pipe):
            with torch.no_grad():
                out = pipe.transformer(given["x"], given["t"], given["c"], return_dict=False)[0]
            return float((out - given["expected"]).abs().max())
        merged = WanPipeline.from_pretrained(final)
        plain = WanPipeline.from_pretrained(base)
        before = gap(plain)
        plain.load_lora_weights(final + "/lora", weight_name="pytorch_lora_weights.safetensors")
        found = {"merged": gap(merged), "base": before, "adapter": gap(plain)}
        pixels = merged("A red circle", max_sequence_length=16, num_frames=5, height=32, width=32,
                        num_inference_steps=2, output_type="pt").frames
        print(json.dumps({**found, "pixels": list(pixels.shape)}))
    """
    found = _elsewhere(program, tmp_path / "final", tiny_wan21, tmp_path / "inputs")
    assert found["base"] > 0.01
    # Float32 sums in another order.
    assert found["merged"] < 1e-5
    assert found["adapter"] < 1e-5
    assert found["pixels"] == [1, 5, 3, 32, 32]


@pytest.mark.parametrize("adapter", [LORA, None])
def test_an_export_is_a_model_again(wan: Make, tmp_path: Path, adapter: dict[str, Any] | None) -> None:
    model = _moved(wan(adapter=adapter))
    before = {name: p.detach().clone() for name, p in trainable(model.network).items()}
    model.export(tmp_path / "final")
    again = wan(weights=str(tmp_path / "final"))
    x, sigma, condition = (
        rng.normals([1], model.geometry.latent),
        torch.tensor([0.6]),
        model.encode(requests(["a star"])),
    )
    with torch.no_grad():
        assert_close(again.velocity(x, sigma, condition), model.velocity(x, sigma, condition), atol=1e-5, rtol=0)
    if adapter is None:
        ours, theirs = model.network.state_dict(), again.network.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(
        torch.equal(before[name], p) for name, p in trainable(model.network).items()
    )  # exporting changes nothing


def test_an_export_can_be_repeated_and_holds_no_pickle(wan: Make, tmp_path: Path) -> None:
    model = wan(adapter=LORA)
    model.export(tmp_path / "final")
    first = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    model.export(tmp_path / "final")
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == first
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} <= {".json", ".safetensors"}
    index = json.loads((tmp_path / "final" / "model_index.json").read_text())
    assert index["_class_name"] == "WanPipeline"


@pytest.fixture
def folder(tiny_wan21: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_wan21, tmp_path / "own"))


def _weights(folder: Path) -> dict[str, Tensor]:
    return {n: t for file in sorted(folder.glob("*.safetensors")) for n, t in load_file(file).items()}


def _store(folder: Path, change: Callable[[Tensor], Tensor], variant: str = "", shards: bool = False) -> None:
    """Write a part's weights again: changed, as a variant, in two shards."""
    (file,) = folder.glob("*.safetensors")
    tensors, stem = {n: change(t) for n, t in load_file(file).items()}, file.name.partition(".")[0]
    file.unlink()
    if not shards:
        save_file(tensors, folder / f"{stem}{variant}.safetensors", metadata={"format": "pt"})
        return
    names, mapped = sorted(tensors), {}
    for i, own in enumerate((names[::2], names[1::2])):
        name = f"{stem}{variant}-{i + 1:05d}-of-00002.safetensors"
        save_file({n: tensors[n] for n in own}, folder / name, metadata={"format": "pt"})
        mapped |= dict.fromkeys(own, name)
    index = json.dumps({"metadata": {}, "weight_map": mapped})
    (folder / f"{stem}.safetensors.index{variant}.json").write_text(index)


FILES = {
    "card.json", "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json",
    "text_encoder/model.safetensors", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
    "transformer/config.json", "transformer/diffusion_pytorch_model.safetensors", "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}  # fmt: skip

STRAYS = (
    ".git/HEAD", ".cache/x.incomplete", "lora/pytorch_lora_weights.safetensors", "runs/a/final/card.json", "evil.py",
    "vae/evil.py", "vae/optimizer.pt", "vae/diffusion_pytorch_model.fp16.safetensors", "text_encoder/pytorch_model.bin",
    "tokenizer/.hidden.json", "tokenizer/sub/x.json",
)  # fmt: skip


def _files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}


def test_an_export_holds_the_pipelines_parts_and_nothing_else(wan: Make, folder: Path, tmp_path: Path) -> None:
    """Into the base folder itself too, where a run started there puts it."""
    for stray in STRAYS:
        (folder / stray).parent.mkdir(parents=True, exist_ok=True)
        (folder / stray).write_text("stray")
    model = wan(weights=str(folder))
    for target in (tmp_path / "final", folder / "runs" / "b" / "final"):
        model.export(target)
        assert _files(target) == FILES
    wan(weights=str(folder), adapter=LORA).export(tmp_path / "adapted")
    assert _files(tmp_path / "adapted") == FILES | {"lora/pytorch_lora_weights.safetensors"}


def test_an_export_says_what_was_trained(wan: Make, folder: Path, tmp_path: Path) -> None:
    (folder / "card.json").write_text(json.dumps({"frames": 81, "shift": 5.0, "failures": {"motion": 0.5}}))
    model = wan(weights=str(folder))
    model.export(tmp_path / "one")
    trained = {"frames": 5, "height": 32, "width": 32, "fps": 8.0, "text_length": 16}
    assert json.loads((tmp_path / "one" / "card.json").read_text()) == {**trained, "shift": 5.0}
    model.export(tmp_path / "two", shift=2.0)
    assert json.loads((tmp_path / "two" / "card.json").read_text()) == {**trained, "shift": 2.0}
    assert family.describe(family.Config(weights=str(tmp_path / "two"))) == family.describe(model.config)


def test_modes_are_not_copied_and_links_are_resolved(wan: Make, folder: Path, tmp_path: Path) -> None:
    blobs = Path(shutil.copytree(folder, tmp_path / "blobs"))
    for path in sorted(p for p in blobs.rglob("*") if p.is_file()):
        path.chmod(0o444)
        (folder / path.relative_to(blobs)).unlink()
        (folder / path.relative_to(blobs)).symlink_to(path)
    wan(weights=str(folder), adapter=LORA).export(tmp_path / "final")
    (tmp_path / "new").touch()
    for path in (p for p in (tmp_path / "final").rglob("*") if p.is_file()):
        assert not path.is_symlink()
        assert path.stat().st_mode == (tmp_path / "new").stat().st_mode


def test_large_files_that_did_not_change_are_linked(
    wan: Make, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "LINKED", 1)
    (tmp_path / "new").touch()
    for path in (p for p in folder.rglob("*") if p.is_file()):
        path.chmod((tmp_path / "new").stat().st_mode)
    _moved(wan(weights=str(folder))).export(tmp_path / "final")
    linked = {f for f in FILES - {"card.json"} if os.path.samefile(tmp_path / "final" / f, folder / f)}
    assert linked == FILES - {"card.json", "transformer/diffusion_pytorch_model.safetensors"}


def _mixed(tensor: Tensor) -> Tensor:
    return tensor.bfloat16() if tensor.ndim > 1 else tensor


@pytest.mark.parametrize("adapter", [LORA, None])
@pytest.mark.parametrize("change", [Tensor.bfloat16, Tensor.half, _mixed], ids=["bfloat16", "float16", "mixed"])
def test_weights_leave_in_the_dtype_they_came_in(
    wan: Make, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    change: Callable[[Tensor], Tensor], adapter: dict[str, Any] | None,
) -> None:  # fmt: skip
    _store(folder / "transformer", change)
    model = _moved(wan(weights=str(folder), adapter=adapter))
    assert {p.dtype for p in trainable(model.network).values()} == {torch.float32}
    with caplog.at_level(logging.INFO, "reelign"):
        model.export(tmp_path / "final")
    came, left = _weights(folder / "transformer"), _weights(tmp_path / "final" / "transformer")
    assert {n: t.dtype for n, t in left.items()} == {n: t.dtype for n, t in came.items()}
    assert "bfloat16" in caplog.text or "float16" in caplog.text
    if adapter is None:
        assert all(torch.equal(change(p.detach()), left[n]) for n, p in model.network.named_parameters())
    else:
        assert {t.dtype for t in _weights(tmp_path / "final" / "lora").values()} == {torch.float32}


@pytest.mark.parametrize("shards", [False, True])
def test_a_variant_leaves_under_its_plain_names_and_in_its_shards(
    wan: Make, folder: Path, tmp_path: Path, shards: bool
) -> None:
    for part in ("transformer", "text_encoder", "vae"):
        _store(folder / part, Tensor.half, ".fp16", shards)
    model = wan(weights=str(folder))
    model.export(tmp_path / "final")
    assert not [f for f in _files(tmp_path / "final") if "fp16" in f]
    assert len(list((tmp_path / "final" / "vae").glob("*.safetensors"))) == 1 + shards
    for part in ("transformer", "text_encoder", "vae"):
        came, left = _weights(folder / part), _weights(tmp_path / "final" / part)
        assert came.keys() == left.keys()
        assert all(torch.equal(came[n], left[n]) for n in came)
    again = wan(weights=str(tmp_path / "final"))
    told = [each.encode(requests(["red"])).values["text"][0] for each in (again, model)]
    assert torch.equal(*told)


def test_a_broken_weight_is_not_exported(wan: Make, folder: Path, tmp_path: Path) -> None:
    _store(folder / "transformer", Tensor.half)
    model = wan(weights=str(folder))
    weight = model.network.blocks[0].attn1.to_q.weight
    with torch.no_grad():
        weight[0, 0] = 1e5
    with pytest.raises(
        RunStopped, match=r"weight 'blocks.0.attn1.to_q.weight' goes up to 1e\+05, which .*float16 cannot"
    ):
        model.export(tmp_path / "final")
    with torch.no_grad():
        weight[0, 0] = float("nan")
    with pytest.raises(RunStopped, match=r"weight 'blocks.0.attn1.to_q.weight' is not finite, so nothing is exported"):
        model.export(tmp_path / "final")


def _removed(path: Path) -> None:
    path.unlink()


def _overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(("deed", "said"), [(_removed, "is gone"), (_overwritten, "has changed")])
@pytest.mark.parametrize(
    "file",
    [
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder/config.json",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        "model_index.json",
    ],
)
def test_a_base_that_has_changed_since_it_was_loaded_is_not_exported_and_comes_back(
    wan: Make, folder: Path, tmp_path: Path, file: str, deed: Callable[[Path], None], said: str
) -> None:
    model, whole = wan(weights=str(folder)), (folder / file).read_bytes()
    deed(folder / file)
    with pytest.raises(
        BadCheckpoint, match=rf"{file}' {said} since the model was loaded, so nothing .*; bring it back"
    ):
        model.export(tmp_path / "final")
    assert not (tmp_path / "final").exists()
    (folder / file).write_bytes(whole)
    model.export(tmp_path / "final")
    assert _files(tmp_path / "final") == FILES


def test_trained_weights_and_files_of_others_may_change_in_the_base(wan: Make, folder: Path, tmp_path: Path) -> None:
    model = wan(weights=str(folder))
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "tokenizer" / "notes.json").write_text("{}")
    model.export(tmp_path / "final")
    assert _files(tmp_path / "final") == FILES


def test_an_adapter_has_the_same_bytes_in_each_export(wan: Make, tmp_path: Path) -> None:
    model = _moved(wan(adapter=LORA))
    found = set()
    for k in range(6):  # two notes in random order would be equal once in 32 times
        model.export(tmp_path / str(k))
        found.add((tmp_path / str(k) / "lora" / "pytorch_lora_weights.safetensors").read_bytes())
    (content,) = found
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header["__metadata__"]) == ["format", "lora_adapter_metadata"]
    targets = json.loads(header["__metadata__"]["lora_adapter_metadata"])["transformer.target_modules"]
    assert len(targets) == 6
    assert targets == sorted(targets)  # and not in a set's order, which differs between processes
