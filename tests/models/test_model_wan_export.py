"""What a run leaves behind loads in stock diffusers, without Reelign."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from reelign.core import rng
from reelign.models._weights import trainable

Make = Callable[..., Any]
LORA = {"rank": 4, "alpha": 10.0}
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


def _sums(network: Any) -> dict[str, float]:
    return {name: float(p.double().abs().sum()) for name, p in sorted(network.state_dict().items())}


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
    length = model.encode([""]).shape[1]
    found = _elsewhere(program, tmp_path / "final", made.frames, made.height, made.width, length)
    assert found["shape"] == [1, *model.geometry.latent]
    assert found["finite"]
    assert found["sums"] == _sums(model.network)


@pytest.mark.slow
def test_stock_diffusers_reads_the_merged_export_and_the_adapter_beside_it(
    wan: Make, tiny_wan21: Path, tmp_path: Path
) -> None:
    model = _moved(wan(lora=LORA))
    x, sigma, condition = rng.normals([1, 2], model.geometry.latent), torch.tensor([0.8, 0.3]), model.encode(["a", "b"])
    with torch.no_grad():
        expected = model.velocity(x, sigma, condition)
    model.export(tmp_path / "final")
    torch.save({"x": x, "t": 1000 * sigma, "c": condition, "expected": expected}, tmp_path / "inputs")
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


@pytest.mark.parametrize("lora", [LORA, None])
def test_an_export_is_a_model_again(wan: Make, tmp_path: Path, lora: dict[str, float] | None) -> None:
    model = _moved(wan(lora=lora))
    before = {name: p.detach().clone() for name, p in trainable(model.network).items()}
    model.export(tmp_path / "final")
    again = wan(weights=str(tmp_path / "final"))
    x, sigma, condition = rng.normals([1], model.geometry.latent), torch.tensor([0.6]), model.encode(["a star"])
    with torch.no_grad():
        assert_close(again.velocity(x, sigma, condition), model.velocity(x, sigma, condition), atol=1e-5, rtol=0)
    if lora is None:
        ours, theirs = model.network.state_dict(), again.network.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(
        torch.equal(before[name], p) for name, p in trainable(model.network).items()
    )  # exporting changes nothing


def test_an_export_can_be_repeated_and_holds_no_pickle(wan: Make, tmp_path: Path) -> None:
    model = wan(lora=LORA)
    model.export(tmp_path / "final")
    first = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    model.export(tmp_path / "final")
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == first
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} <= {".json", ".safetensors"}
    index = json.loads((tmp_path / "final" / "model_index.json").read_text())
    assert index["_class_name"] == "WanPipeline"
