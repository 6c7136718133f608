"""Folders and geometries that a Wan model refuses, each with a sentence that says what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reelign.errors import BadCheckpoint, BadConfig

Make = Callable[..., Any]


@pytest.fixture
def folder(tiny_wan21: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_wan21, tmp_path / "own"))


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_missing_folder(wan: Make, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"'.*nowhere' is no pipeline folder \(no model_index.json\); give a local"):
        wan(weights=str(tmp_path / "nowhere"))


def test_a_folder_without_an_index(wan: Make, folder: Path) -> None:
    (folder / "model_index.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"no model_index.json"):
        wan(weights=str(folder))


def test_a_download_that_stopped_half_way(wan: Make, folder: Path) -> None:
    shutil.rmtree(folder / "transformer")
    with pytest.raises(BadCheckpoint, match=r"no transformer/, which its model_index.json names; its download"):
        wan(weights=str(folder))


def test_pickled_weights(wan: Make, folder: Path) -> None:
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, folder / "transformer" / "diffusion_pytorch_model.bin")
    with pytest.raises(
        BadCheckpoint, match=r"only pickled weights \(diffusion_pytorch_model.bin\).*convert them first"
    ):
        wan(weights=str(folder))


def test_no_weights_at_all(wan: Make, folder: Path) -> None:
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"has no weights"):
        wan(weights=str(folder))


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_truncated_weights(wan: Make, folder: Path, part: str) -> None:
    (file,) = (folder / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadCheckpoint, match=part):
        wan(weights=str(folder))


@pytest.mark.parametrize(
    ("part", "weight"),
    [
        ("transformer", "blocks.0.attn1.to_q.weight"),
        ("text_encoder", "encoder.final_layer_norm.weight"),
        ("vae", "decoder.conv_in.weight"),
    ],
)
def test_one_weight_that_is_not_a_number(wan: Make, folder: Path, part: str, weight: str) -> None:
    from safetensors.torch import load_file, save_file

    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    tensors[weight].view(-1)[7] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(
        BadCheckpoint, match=rf"{part}' holds numbers that are not finite in the weight '{weight}'; it diverged or was"
    ):
        wan(weights=str(folder), adapter={"name": "lora", "rank": 2})


def test_weights_that_lack_a_tensor(wan: Make, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    (file,) = (folder / "transformer").glob("*.safetensors")
    tensors = load_file(file)
    del tensors["proj_out.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BadCheckpoint, match=r"proj_out\.weight"):
        wan(weights=str(folder))


@pytest.mark.parametrize("part", ["text_encoder", "vae"])
def test_other_parts_with_pickled_weights(wan: Make, folder: Path, part: str) -> None:
    (file,) = (folder / part).glob("*.safetensors")
    file.unlink()
    torch.save({}, file.with_name("pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"))
    with pytest.raises(BadCheckpoint, match=rf"{part}.*safetensors"):
        wan(weights=str(folder))


def test_another_transformer_class(wan: Make, folder: Path) -> None:
    _edit(folder / "transformer" / "config.json", _class_name="LTXVideoTransformer3DModel")
    with pytest.raises(BadCheckpoint, match=r"transformer' holds LTXVideo\w+, but WanTransformer3DModel is needed"):
        wan(weights=str(folder))


def test_wan22_with_two_experts(wan: Make, folder: Path) -> None:
    _edit(folder / "model_index.json", transformer_2=["diffusers", "WanTransformer3DModel"], boundary_ratio=0.875)
    with pytest.raises(BadCheckpoint, match=r"two experts"):
        wan(weights=str(folder))


@pytest.mark.parametrize(
    "change",
    [{"auto_map": {"AutoModel": "evil.Model"}}, {"_attn_implementation_internal": "someone/kernels"}],
)
@pytest.mark.parametrize("file", ["text_encoder/config.json", "tokenizer/tokenizer_config.json"])
def test_a_config_that_could_run_code(wan: Make, folder: Path, file: str, change: dict[str, Any]) -> None:
    _edit(folder / file, **change)
    with pytest.raises(BadCheckpoint, match=rf"has the keys {next(iter(change))}, which .*cannot run code only"):
        wan(weights=str(folder))


def test_another_text_encoder(wan: Make, folder: Path) -> None:
    _edit(folder / "text_encoder" / "config.json", model_type="t5")
    with pytest.raises(BadCheckpoint, match=r"is of model type 't5'; a UMT5EncoderModel is 'umt5'"):
        wan(weights=str(folder))


def test_a_tokenizer_that_is_not_there(wan: Make, folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"tokenizer' cannot be read as a tokenizer"):
        wan(weights=str(folder))


def test_a_folder_without_a_text_encoder(wan: Make, folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(BadCheckpoint, match=r"has no text_encoder/"):
        wan(weights=str(folder))


def test_another_autoencoder(wan: Make, folder: Path) -> None:
    _edit(folder / "vae" / "config.json", _class_name="AutoencoderKL")
    with pytest.raises(BadCheckpoint, match=r"vae' holds AutoencoderKL, but AutoencoderKLWan is needed"):
        wan(weights=str(folder))


@pytest.mark.parametrize(
    "file", ["transformer/config.json", "text_encoder/config.json", "vae/config.json", "card.json"]
)
def test_a_json_file_that_is_none(wan: Make, folder: Path, file: str) -> None:
    (folder / file).write_text("{")
    with pytest.raises(BadCheckpoint, match=rf"{file.rpartition('/')[2]}.*JSON"):
        wan(weights=str(folder))


@pytest.mark.parametrize(
    ("size", "refused"),
    [
        ((6, 32, 32), r"frames: 6 does not fit; it must be 1 \+ 4k, such as 5 or 9"),
        ((5, 33, 32), "height: 33 does not fit; it must be a multiple of 16, such as 32 or 48"),
        ((5, 32, 28), "width: 28 does not fit; it must be a multiple of 16, such as 16 or 32"),
        ((5, 32, 8), "width: 8 does not fit; it must be a multiple of 16, such as 16"),
    ],
)
def test_a_geometry_that_codec_and_patches_cannot_make(wan: Make, size: tuple[int, int, int], refused: str) -> None:
    frames, height, width = size
    with pytest.raises(BadConfig, match=rf"^model\.size\.{refused}\.$"):
        wan(size={"frames": frames, "height": height, "width": width})


@pytest.mark.parametrize(
    ("part", "weight"), [("vae", "decoder.conv_in.weight"), ("text_encoder", "encoder.final_layer_norm.weight")]
)
def test_weights_that_are_not_finite(wan: Make, folder: Path, part: str, weight: str) -> None:
    """Of frozen parts too, where a training that does not use them would not notice."""
    from safetensors.torch import load_file, save_file

    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    tensors[weight].view(-1)[-1] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BadCheckpoint, match=rf"{part}' holds numbers that are not finite in the weight '{weight}'"):
        wan(weights=str(folder))
