"""A part's files are compared with its class before a weight is read."""

import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import UMT5EncoderModel

from reelign import pretrained
from reelign.errors import BadCheckpoint

Weights = dict[str, Tensor]
QUERY = "blocks.0.attn1.to_q.weight"


@pytest.fixture
def transformer(tiny_wan21: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_wan21 / "transformer", tmp_path / "transformer"))


@pytest.fixture
def encoder(tiny_wan21: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_wan21 / "text_encoder", tmp_path / "text_encoder"))


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _change(folder: Path, change: Callable[[Weights], Weights], to: str | None = None) -> None:
    (file,) = folder.glob("*.safetensors")
    weights = change(load_file(file))
    file.unlink()
    save_file(weights, folder / (to or file.name), metadata={"format": "pt"})


def _read(folder: Path) -> pretrained.Part:
    return pretrained.diffusers(WanTransformer3DModel, folder)


def test_a_whole_part_is_read_without_weights(transformer: Path, encoder: Path) -> None:
    part, text = _read(transformer), pretrained.transformers(UMT5EncoderModel, encoder)
    assert part.config["num_layers"] == 2
    assert part.config["qk_norm"] == "rms_norm_across_heads"
    assert text.config.d_model == 32
    for found in (part, text):
        assert found.network is not None
        assert {p.device.type for p in found.network.parameters()} == {"meta"}


def _packed(weights: Weights) -> Weights:
    scale = {f"{QUERY}_scale": torch.ones(1)}
    return {**weights, QUERY: weights[QUERY].to(torch.float8_e4m3fn), **scale}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_packed, rf"holds the weight '{QUERY}_scale', which a Wan.* has no use for; weights packed for inference"),
        (lambda w: {**w, "scale_weight": torch.ones(1)}, "holds the weight 'scale_weight', .*packed for inference"),
        (lambda w: {**w, "extra": torch.ones(1), "z": torch.ones(1)}, "weight 'extra' and 1 more, .* of another model"),
        (
            lambda w: {**w, QUERY: w[QUERY].to(torch.int8)},
            rf"holds the weight '{QUERY}' as I8; give weights in float32",
        ),
        (lambda w: {**w, QUERY: w[QUERY].to(torch.float8_e4m3fn)}, rf"'{QUERY}' as F8_E4M3; give weights in float32"),
        (lambda w: {**w, QUERY: w[QUERY][:, :8].contiguous()}, rf"'{QUERY}' as \[48, 8\], but .* makes it \[48, 48\]"),
        (lambda w: {n: t for n, t in w.items() if n != QUERY}, rf"lacks the weight '{QUERY}'; its download"),
        (lambda w: {n: t for n, t in w.items() if "blocks.1" not in n}, "weights, but its config.json asks for more"),
    ],
)
def test_weights_that_are_not_exactly_the_classs(
    transformer: Path, change: Callable[[Weights], Weights], said: str
) -> None:
    _change(transformer, change)
    with pytest.raises(BadCheckpoint, match=said):
        _read(transformer)


@pytest.mark.parametrize(
    "change",
    [
        {"num_layers": 10**6},
        {"num_layers": 3},
        {"attention_head_dim": 10**9},
        {"attention_head_dim": 10**9, "num_attention_heads": 10**9},
        {"ffn_dim": 10**30},
        {"num_layers": -1},
        {"patch_size": [1, "x", 2]},
        {"text_dim": "wide"},
        {"freq_dim": None},
    ],
    ids=str,
)
def test_a_config_that_its_weights_do_not_bear_out_is_known_at_once(transformer: Path, change: dict[str, Any]) -> None:
    _edit(transformer / "config.json", **change)
    began = time.perf_counter()
    with pytest.raises(BadCheckpoint) as caught:
        _read(transformer)
    assert time.perf_counter() - began < 5
    assert len(str(caught.value)) < 600 + len(str(transformer)) * 2


@pytest.mark.parametrize("key", ["auto_map", "_attn_implementation_internal", "attn_implementation", "is_evil"])
def test_a_key_that_the_class_does_not_have_is_refused(transformer: Path, encoder: Path, key: str) -> None:
    for folder, kind, read in (
        (transformer, WanTransformer3DModel, pretrained.diffusers),
        (encoder, UMT5EncoderModel, pretrained.transformers),
    ):
        _edit(folder / "config.json", **{key: "org/kernel"})
        with pytest.raises(BadCheckpoint, match=rf"has the keys {key}, which a {kind.__name__} does not have"):
            read(kind, folder)


def test_bookkeeping_of_older_versions_is_passed_over(encoder: Path) -> None:
    _edit(encoder / "config.json", output_past=True, scalable_attention=True, torch_dtype="bfloat16", num_beams=4)
    config = pretrained.transformers(UMT5EncoderModel, encoder).config
    assert not hasattr(config, "output_past")
    assert config.dtype is None


@pytest.mark.parametrize(
    "how", [{"quant_method": "bitsandbytes", "load_in_4bit": True}, "fp8", {"x": 1}, [1], False], ids=str
)
def test_quantized_weights(transformer: Path, encoder: Path, how: object) -> None:
    for folder, kind, read in (
        (transformer, WanTransformer3DModel, pretrained.diffusers),
        (encoder, UMT5EncoderModel, pretrained.transformers),
    ):
        _edit(folder / "config.json", quantization_config=how)
        with pytest.raises(
            BadCheckpoint, match=rf"{folder.name}' is quantized \(.*\); give the weights in full precision"
        ):
            read(kind, folder)


def test_an_adapter_beside_the_weights_is_refused(encoder: Path) -> None:
    (encoder / "adapter_config.json").write_text("{}")
    with pytest.raises(BadCheckpoint, match="holds an adapter beside its weights"):
        pretrained.transformers(UMT5EncoderModel, encoder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_named(transformer: Path, value: float) -> None:
    _change(transformer, lambda w: {**w, QUERY: torch.full_like(w[QUERY], value)})
    part = _read(transformer)
    with pytest.raises(BadCheckpoint, match=rf"transformer' holds numbers that are not finite in the weight '{QUERY}'"):
        pretrained.load(part, torch_dtype=torch.float32)


def test_the_only_variant_loads_and_beside_plain_files_it_is_passed_over_with_a_word(
    transformer: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "diffusion_pytorch_model.fp16.safetensors"
    plain = {n: p.clone() for n, p in load_file(next(transformer.glob("*.safetensors"))).items()}
    _change(transformer, lambda w: {n: t.half() for n, t in w.items()}, to=name)
    network = pretrained.load(_read(transformer), torch_dtype=torch.float32)
    assert all(torch.equal(p, plain[n].half().float()) for n, p in network.named_parameters())
    save_file(plain, transformer / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.INFO, "reelign"):
        network = pretrained.load(_read(transformer), torch_dtype=torch.float32)
    assert all(torch.equal(p, plain[n]) for n, p in network.named_parameters())
    assert "the plain weights are taken, not fp16" in caplog.text


def test_the_config_cannot_choose_an_attention(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    stock = UMT5EncoderModel.from_pretrained.__func__

    def spy(kind: Any, *args: Any, **options: Any) -> Any:
        given.update(options)
        return stock(kind, *args, **options)

    monkeypatch.setattr(UMT5EncoderModel, "from_pretrained", classmethod(spy))
    network = pretrained.load(pretrained.transformers(UMT5EncoderModel, encoder), dtype=torch.float32)
    assert given["attn_implementation"] == "sdpa"
    assert given["local_files_only"]
    assert given["use_safetensors"]
    assert network.config._attn_implementation == "sdpa"


def test_what_a_stock_loader_raises_becomes_one_sentence(tmp_path: Path) -> None:
    class Odd(Exception):
        pass

    with (
        pytest.raises(BadCheckpoint, match=r"^'.*' cannot be read as a Thing: first x* \.\.\. x* second\.$"),
        pretrained.reading(tmp_path, "Thing"),
    ):
        raise Odd("first " + "x" * 1000 + "\nsecond")
    with pytest.raises(BadCheckpoint, match="cannot be read as a Thing: Odd"), pretrained.reading(tmp_path, "Thing"):
        raise Odd
    with pytest.raises(KeyboardInterrupt), pretrained.reading(tmp_path, "Thing"):
        raise KeyboardInterrupt
