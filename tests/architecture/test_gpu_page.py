"""What docs/gpu.md says of memory is what is computed; `python tests/architecture/test_gpu_page.py` writes it again."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from reelign.models import _pipeline, _size
from reelign.models import wan as family
from reelign.outline import Outline
from reelign.pretrained import Part
from reelign.pretrained.headers import Weights
from reelign.protocols import Card
from reelign.runtime import footprint
from reelign.runtime.footprint import Burden
from reelign.runtime.learner import LearnerConfig

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
TRANSFORMERS = {
    "1.3B": {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
    "14B": {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824},
}
"""The transformers of Wan2.1 text-to-video, as their config.json files say; all else is the classes' default."""
TEXT = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
BURDEN = Burden(1, 0, 1, roles=1)
ADAPTED = {"adapter": {"name": "lora", "rank": 32}}
ROW = re.compile(
    r"^\| (1\.3B|14B) \| (\d+) x (\d+) x (\d+) \| (LoRA 32|all weights) \| (yes|no) \| (.*) \|$", re.MULTILINE
)
ROWS = ROW.findall(PAGE.read_text(encoding="utf-8"))
QUICK = {("LoRA 32", "no"), ("all weights", "yes")}
"""What trains, and whether with checkpointing, in the rows whose passes are looked at each time."""


def _part(kind: Any, *config: Any, **settings: Any) -> Part:
    with torch.device("meta"):
        network = kind(*config, **settings)
    weights = Weights(Path(), None, None, (), {}, ())
    return Part(kind, Path(), config[0] if config else dict(network.config), weights, network)


@cache
def _outline(model: str, trains: str) -> Outline:
    """Of a pipeline without files, on a GPU."""
    transformer, vae = _part(WanTransformer3DModel, **TRANSFORMERS[model]), _part(AutoencoderKLWan)
    text = _part(UMT5EncoderModel, UMT5Config(**TEXT))
    card = Card(_size.geometry_of(Path(), transformer.config, vae.config, _size.SizeConfig()), 512)
    pipeline = _pipeline.Pipeline(Path(), card, None, transformer, text, vae, "T5TokenizerFast")
    with mock.patch.object(family, "_read", return_value=pipeline):
        config = family.Config.model_validate(ADAPTED if trains == "LoRA 32" else {})
        return family.outline(config, torch.device("cuda"))


def _held(outline: Outline) -> list[int]:
    """Bytes of the network, of what stands beside it, and of what its learner holds."""
    held = footprint.model(outline)
    beside = held.pop("text encoder") + held.pop("autoencoder")
    return [sum(held.values()), beside, sum(footprint.kept(outline, LearnerConfig(ema=0.9), BURDEN).values())]


def _shown(sizes: list[int]) -> list[str]:
    return [f"{size / 2**30:.1f}" for size in sizes]


def _computed(model: str, frames: int, height: int, width: int, trains: str, checkpointing: bool) -> str:
    """The cells of a row: what is held, a clip's pass, and their sum."""
    outline = _outline(model, trains)
    network: Any = outline.network
    network.enable_gradient_checkpointing() if checkpointing else network.disable_gradient_checkpointing()
    latent = (16, (frames - 1) // 4 + 1, height // 8, width // 8)
    outline = replace(outline, inputs=lambda n: ((n, *latent), (n,), (n, 512, 4096)))
    sizes = [*_held(outline), footprint.working(outline, BURDEN)["pass"]]
    return " | ".join(_shown([*sizes, sum(sizes)]))


@pytest.mark.xdist_group("gpu page")  # they share outlines
@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row[:6]))
def test_what_a_row_says_is_held_is_held(row: tuple[str, ...]) -> None:
    assert row[6].split(" | ")[:3] == _shown(_held(_outline(row[0], row[4])))


@pytest.mark.xdist_group("gpu page")
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=() if row[4:6] in QUICK else pytest.mark.whole) for row in ROWS],
    ids=lambda row: "-".join(row[:6]),
)
def test_a_row_is_as_computed(row: tuple[str, ...]) -> None:
    model, frames, height, width, trains, checkpointing, cells = row
    assert _computed(model, int(frames), int(height), int(width), trains, checkpointing == "yes") == cells


def test_there_are_rows_of_both_models_with_and_without_an_adapter() -> None:
    assert {(row[0], row[4]) for row in ROWS} >= {("1.3B", "LoRA 32"), ("1.3B", "all weights"), ("14B", "LoRA 32")}


def _again(row: re.Match[str]) -> str:
    model, frames, height, width, trains, checkpointing, old = row.groups()
    return row[0].replace(old, _computed(model, int(frames), int(height), int(width), trains, checkpointing == "yes"))


if __name__ == "__main__":
    PAGE.write_text(ROW.sub(_again, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
