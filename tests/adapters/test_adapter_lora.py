"""Adapters: what a recipe and an adapter's file ask for, and that a start acts as it did where it was trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_musubi_wan_lora_to_diffusers
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from reelign.batches import requests
from reelign.core import rng
from reelign.errors import BadCheckpoint, BadConfig
from reelign.models import _network
from reelign.models import wan as family
from reelign.weights import trainable

Make = Callable[..., Any]
QUERY, OUT, WIDE = "blocks.0.attn1.to_q", "blocks.1.attn2.to_out.0", "blocks.1.ffn.net.0.proj"
LAYERS = {QUERY: (48, 48), OUT: (48, 48), WIDE: (48, 96)}
"""Inputs and outputs of the tiny Wan's layers that get an adapter here."""
OTHERS = {QUERY: "blocks.0.self_attn.q", OUT: "blocks.1.cross_attn.o", WIDE: "blocks.1.ffn.0"}
RANK = 4


def _matrices(rank: int = RANK) -> dict[str, tuple[Tensor, Tensor]]:
    """Down and up by layer."""
    shapes = {name: ((rank, into), (out, rank)) for name, (into, out) in LAYERS.items()}
    return {
        name: (0.3 * rng.normal(down, seed=2 * i), 0.3 * rng.normal(up, seed=2 * i + 1))
        for i, (name, (down, up)) in enumerate(shapes.items())
    }


def _file(folder: Path, form: str, alpha: float | None, rank: int = RANK) -> Path:
    """An adapter as other programs write it, with `alpha` where they keep it."""
    folder.mkdir(exist_ok=True)
    pairs, notes, name = _matrices(rank), {"format": "pt"}, "adapter.safetensors"
    if form == "peft":
        name = "adapter_model.safetensors"
        found = {
            f"base_model.model.{n}.lora_{s}.weight": m for n, p in pairs.items() for s, m in zip("AB", p, strict=True)
        }
        (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": alpha, "peft_type": "LORA"}))
    elif form == "diffusers":
        found = {f"transformer.{n}.lora_{s}.weight": m for n, p in pairs.items() for s, m in zip("AB", p, strict=True)}
        if alpha is not None:
            notes["lora_adapter_metadata"] = json.dumps({"transformer.r": rank, "transformer.lora_alpha": alpha})
    else:
        found = {}
        for n, p in pairs.items():
            key = OTHERS[n] if form in ("kohya", "original") else n
            key = f"lora_unet_{key.replace('.', '_')}" if form.startswith("kohya") else f"diffusion_model.{key}"
            found |= {f"{key}.lora_{s}.weight": m for s, m in zip(("down", "up"), p, strict=True)}
            if alpha is not None:
                found[f"{key}.alpha"] = torch.tensor(alpha, dtype=torch.bfloat16)
    save_file(found, folder / name, metadata=notes)
    return folder / name


@torch.no_grad()
def _added(base: Any, scale: float) -> Any:
    """The base with the adapter's products added to its weights."""
    for name, (down, up) in _matrices().items():
        base.network.get_submodule(name).weight += scale * up @ down
    return base


def _velocity(model: Any) -> Tensor:
    x = rng.normals([1, 2], model.geometry.latent)
    with torch.no_grad():
        return model.velocity(x, torch.tensor([0.8, 0.3]), model.encode(requests(["red", "blue"])))


@pytest.mark.parametrize("alpha", [None, 2.0])
@pytest.mark.parametrize("form", ["peft", "diffusers", "kohya", "kohya with diffusers' names", "original"])
def test_a_start_adds_its_scaled_product_to_the_base(wan: Make, tmp_path: Path, form: str, alpha: float | None) -> None:
    model = wan(adapter={"name": "lora", "start": str(_file(tmp_path / "a", form, alpha))})
    merged = _added(wan(), (alpha or RANK) / RANK)
    assert_close(_velocity(model), _velocity(merged), atol=1e-5, rtol=1e-5)
    assert float((_velocity(model) - _velocity(wan())).abs().max()) > 0.01
    assert {n.split(".lora_")[0] for n in trainable(model.network)} == set(LAYERS)
    assert model.network.peft_config["default"].r == RANK


@pytest.mark.parametrize(
    "settings", [{"alpha": 1.0}, {"alpha": 64, "rank": RANK}, {"targets": ["to_q", "to_out.0", "ffn.net.0.proj"]}]
)
def test_a_start_acts_alike_whatever_the_recipes_scale_and_targets(
    wan: Make, tmp_path: Path, settings: dict[str, Any]
) -> None:
    model = wan(adapter={"name": "lora", "start": str(_file(tmp_path / "a", "kohya", 2.0)), **settings})
    assert_close(_velocity(model), _velocity(_added(wan(), 2.0 / RANK)), atol=1e-5, rtol=1e-5)
    adapted = {n.split(".lora_")[0] for n in trainable(model.network)}
    assert set(LAYERS) <= adapted
    assert (len(adapted) > len(LAYERS)) == ("targets" in settings)


def test_without_a_start_rank_and_targets_are_the_default(wan: Make) -> None:
    own = wan(adapter="lora").network.peft_config["default"]
    assert (own.r, own.lora_alpha) == (32, 32)
    assert {"to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"} == set(own.target_modules)


def test_a_start_is_what_the_reference_pulls_towards(wan: Make, tmp_path: Path) -> None:
    model = wan(adapter={"name": "lora", "start": str(_file(tmp_path / "a", "diffusers", None))})
    before = _velocity(model)
    model.reference.start()
    assert not model.reference.adapter_off
    with torch.no_grad():
        for p in trainable(model.network).values():
            p += 0.1
    with model.reference.on():
        assert torch.equal(_velocity(model), before)


def test_an_exported_adapter_is_a_start_again(wan: Make, tmp_path: Path) -> None:
    model = wan(adapter={"name": "lora", "start": str(_file(tmp_path / "a", "kohya", 2.0))})
    model.export(tmp_path / "final")
    again = wan(adapter={"name": "lora", "start": str(tmp_path / "final" / "lora")})
    assert torch.equal(_velocity(again), _velocity(model))


def test_kohyas_names_are_read_as_diffusers_reads_them(tmp_path: Path, wan: Make) -> None:
    """Diffusers' converter wants every layer of every block, so it is given them."""
    network = wan().network
    names = [n for n, m in network.named_modules() if isinstance(m, torch.nn.Linear) and n.startswith("blocks.")]
    found: dict[str, Tensor] = {}
    for i, name in enumerate(names):
        theirs, module = name, network.get_submodule(name)
        for ours, other in _network.ORIGINAL:
            theirs = theirs.replace(ours, other)
        key = f"lora_unet_{theirs.replace('.', '_')}"
        found[f"{key}.lora_down.weight"] = rng.normal((RANK, module.in_features), seed=i)
        found[f"{key}.lora_up.weight"] = rng.normal((module.out_features, RANK), seed=1000 + i)
        found[f"{key}.alpha"] = torch.tensor(float(1 + i))
    save_file(found, tmp_path / "a.safetensors")
    stock = _convert_musubi_wan_lora_to_diffusers(dict(found))
    adapted = wan(adapter={"name": "lora", "start": str(tmp_path / "a.safetensors")}).network
    for name in names:
        down, up = (stock[f"transformer.{name}.lora_{s}.weight"] for s in "AB")
        assert_close(adapted.get_submodule(name).get_delta_weight("default"), up @ down, atol=1e-4, rtol=1e-5)


def _check(tiny_wan21: Path, **lora: Any) -> None:
    family.check(
        family.Config.model_validate(
            {
                "weights": str(tiny_wan21),
                "size": {"frames": 5, "height": 32, "width": 32},
                "adapter": {"name": "lora", **lora},
            }
        )
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 8}, r"model.adapter.rank: 8, but the adapter '.*' has rank 4; leave it out"),
        ({"targets": ["to_q"]}, r"model.adapter.targets: blocks.1.attn2.to_out.0 is not among them"),
    ],
)
def test_a_recipe_that_a_start_does_not_fit(
    tiny_wan21: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadConfig, match=said):
        _check(tiny_wan21, start=str(_file(tmp_path / "a", "diffusers", None)), **settings)


A, B = f"transformer.{QUERY}.lora_A.weight", f"transformer.{QUERY}.lora_B.weight"
DOWN, UP = torch.ones(4, 48), torch.ones(48, 4)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({A: DOWN, B: UP, f"transformer.{QUERY}.dora_scale": torch.ones(48)}, "dora_scale', which is of no linear"),
        ({A: DOWN, B: UP, f"transformer.{QUERY}.lora_B.bias": torch.ones(48)}, "lora_B.bias', which is of no linear"),
        ({"lora_te_text_model.lora_down.weight": DOWN}, "'lora_te_text_model.lora_down.weight', which is of no linear"),
        ({A: DOWN}, r"holds matrices of \[4, 48\] and \[\] for blocks.0.attn1.to_q, which is 48 by 48"),
        ({A: DOWN, B: torch.ones(48, 3)}, r"matrices of \[4, 48\] and \[48, 3\]"),
        ({A: torch.ones(4, 64), B: UP}, r"matrices of \[4, 64\] .* another model"),
        ({A: DOWN, B: UP, "transformer.blocks.1.attn1.to_q.lora_A.weight": torch.ones(2, 48),
          "transformer.blocks.1.attn1.to_q.lora_B.weight": torch.ones(48, 2)}, r"layers of different ranks \(2 to 4\)"),
        ({A: DOWN, B: UP, A.replace("transformer.", ""): 2 * DOWN}, "holds the down of blocks.0.attn1.to_q twice"),
        ({A: DOWN.to(torch.float8_e4m3fn), B: UP}, "holds '.*' in a format for inference"),
        ({A: DOWN, B: UP, f"transformer.{QUERY}.alpha": torch.tensor(0.0)}, "gives '.*alpha' as 0.0, but a"),
        ({A: DOWN, B: UP, f"transformer.{QUERY}.alpha": torch.ones(2)}, "cannot be read as an adapter"),
        ({}, "holds no adapter; give a LoRA"),
    ],
    ids=range(12),
)  # fmt: skip
def test_a_file_that_is_no_adapter_of_the_model(
    tiny_wan21: Path, tmp_path: Path, tensors: dict[str, Tensor], said: str
) -> None:
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(BadCheckpoint, match=said) as caught:
        _check(tiny_wan21, start=str(tmp_path / "a.safetensors"))
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("change", [{"use_rslora": True}, {"use_dora": True}, {"alpha_pattern": {"to_q": 1}}], ids=str)
def test_adapters_with_scales_of_their_own_are_refused(
    tiny_wan21: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    file = _file(tmp_path / "a", "peft", 2.0)
    beside = file.with_name("adapter_config.json")
    beside.write_text(json.dumps({**json.loads(beside.read_text()), **change}))
    with pytest.raises(BadCheckpoint, match=rf"was trained with {next(iter(change))}; give a plain LoRA"):
        _check(tiny_wan21, start=str(file.parent))


def test_places_without_an_adapter(tiny_wan21: Path, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x80\x02.")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    (tmp_path / "empty").mkdir()
    for name, said in (
        ("gone.safetensors", r"model.adapter.start: '.*gone.safetensors' is not there"),
        ("a.bin", r"is no \*.safetensors file"),
        ("empty", "holds 0 safetensors files; name one"),
        ("junk.safetensors", "cannot be read as an adapter"),
    ):
        with pytest.raises(BadCheckpoint, match=said):
            _check(tiny_wan21, start=str(tmp_path / name))


def test_a_start_that_is_not_finite_is_refused(wan: Make, tmp_path: Path) -> None:
    save_file({A: DOWN * float("nan"), B: UP}, tmp_path / "a.safetensors")
    with pytest.raises(BadCheckpoint, match=r"not finite in 'transformer.blocks.0.attn1.to_q.lora_A.weight'"):
        wan(adapter={"name": "lora", "start": str(tmp_path / "a.safetensors")})


@pytest.mark.parametrize("settings", [{"alpha": 0}, {"alpha": -1}, {"alpha": float("inf")}, {"rank": 0}])
def test_scales_and_ranks_are_positive(settings: dict[str, Any]) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        family.Config.model_validate({"adapter": {"name": "lora", **settings}})


def test_a_role_with_weights_of_its_own_counts_within_one_that_is_switched_off(wan: Make) -> None:
    model, base = wan(adapter={"name": "lora", "rank": RANK}), _velocity(wan())
    model.reference.start()
    with torch.no_grad():
        for p in trainable(model.network).values():
            p += 0.1
    moved = _velocity(model)
    model.reference.start("sampled")
    with model.reference.on():
        assert torch.equal(_velocity(model), base)
        with model.reference.on("sampled"):
            assert torch.equal(_velocity(model), moved)
            with model.reference.on():
                assert torch.equal(_velocity(model), base)
        assert torch.equal(_velocity(model), base)
    assert torch.equal(_velocity(model), moved)
