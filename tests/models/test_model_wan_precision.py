"""Weights that do not train are kept as coarsely as they are computed with; what comes out has the same bits."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from reelign.batches import requests
from reelign.core import rng
from reelign.errors import BadCheckpoint
from reelign.models import wan as family
from reelign.weights import trainable

Make = Callable[..., Any]
LORA = {"name": "lora", "rank": 4, "alpha": 10.0}
PACKAGED = {"weights": "playground", "size": None, "text_length": None}
FILE = "transformer/diffusion_pytorch_model.safetensors"


def _velocity(model: Any, guidance: float = 1.0) -> Tensor:
    x = rng.normals(range(3), model.geometry.latent)
    with torch.no_grad():
        return model.velocity(
            x, torch.tensor([0.9, 0.6, 0.2]), model.encode(requests(["red", "blue", "two stars"])), guidance
        )


def _moved(model: Any) -> Any:
    with torch.no_grad():
        for i, p in enumerate(trainable(model.network).values()):
            p += 0.05 * rng.normal(p.shape, seed=i)
    return model


def _frozen(model: Any) -> dict[str, Tensor]:
    return {name: p for name, p in model.network.named_parameters() if "lora_" not in name}


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("settings", [{}, PACKAGED], ids=["tiny_wan21", "packaged"])
def test_a_frozen_base_in_bfloat16_gives_the_velocities_of_one_in_float32(
    wan: Make, settings: dict[str, Any], guidance: float
) -> None:
    trained = wan(precision="bfloat16", **settings)
    adapted = wan(precision="bfloat16", adapter=LORA, **settings)
    assert {p.dtype for p in trained.network.parameters()} == {torch.float32}
    assert torch.equal(_velocity(adapted, guidance), _velocity(trained, guidance))


@pytest.mark.parametrize("settings", [{}, PACKAGED], ids=["tiny_wan21", "packaged"])
def test_it_takes_half_the_memory_and_what_no_product_rounds_stays_whole(wan: Make, settings: dict[str, Any]) -> None:
    exact, coarse = (wan(adapter=LORA, precision=p, **settings) for p in ("float32", "bfloat16"))
    sizes = [sum(p.nbytes for p in _frozen(model).values()) for model in (exact, coarse)]
    assert sizes[1] < 0.55 * sizes[0]
    assert {p.dtype for p in exact.network.parameters()} == {torch.float32}
    assert {p.dtype for p in trainable(coarse.network).values()} == {torch.float32}
    there, here = _frozen(exact), _frozen(coarse)
    whole = {name for name, p in here.items() if p.dtype == torch.float32}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in whole} >= {"norm_q", "norm_k", "norm2"}
    assert all(torch.equal(here[name], there[name]) for name in whole)
    assert all(torch.equal(here[name], there[name].bfloat16()) for name in here.keys() - whole)


def test_a_fresh_adapter_is_the_same_whatever_its_base_is_kept_in(wan: Make) -> None:
    exact, coarse = (trainable(wan(adapter=LORA, precision=p).network) for p in ("float32", "bfloat16"))
    assert exact.keys() == coarse.keys()
    assert all(torch.equal(exact[name], coarse[name]) for name in exact)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_untrained_adapter_exports_the_base_bit_for_bit(
    wan: Make, tiny_wan21: Path, tmp_path: Path, precision: str
) -> None:
    wan(adapter=LORA, precision=precision).export(tmp_path / "final")
    assert (tmp_path / "final" / FILE).read_bytes() == (tiny_wan21 / FILE).read_bytes()


def test_an_adapter_is_merged_into_the_bases_own_numbers_not_into_rounded_ones(
    wan: Make, tiny_wan21: Path, tmp_path: Path
) -> None:
    model = _moved(wan(adapter=LORA, precision="bfloat16"))
    model.export(tmp_path / "final")
    base, merged = load_file(tiny_wan21 / FILE), load_file(tmp_path / "final" / FILE)
    name = "blocks.0.attn1.to_q"
    own = dict(trainable(model.network))
    down, up = (own[f"{name}.lora_{side}.default.weight"].detach() for side in "AB")
    assert torch.equal(merged[f"{name}.weight"], base[f"{name}.weight"] + (up @ down) * 2.5)
    assert all(torch.equal(merged[n], base[n]) for n in base if n.endswith((".bias", "scale_shift_table")))


def test_a_base_that_has_changed_is_merged_with_nothing(wan: Make, tmp_path: Path, tiny_wan21: Path) -> None:
    folder = Path(shutil.copytree(tiny_wan21, tmp_path / "own"))
    model = wan(weights=str(folder), adapter=LORA)
    (folder / FILE).unlink()
    with pytest.raises(BadCheckpoint, match=rf"{FILE}' is gone since the model was loaded, so nothing is exported"):
        model.export(tmp_path / "final")
    assert not (tmp_path / "final").exists()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_outline_has_the_dtypes_of_what_is_loaded(wan: Make, precision: str) -> None:
    model = wan(adapter=LORA, precision=precision)
    told = family.outline(model.config, model.device).network
    dtypes = [{name: p.dtype for name, p in network.named_parameters()} for network in (told, model.network)]
    assert dtypes[0] == dtypes[1]
