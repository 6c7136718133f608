"""The packaged generator on disk: a folder for stock `WanPipeline.from_pretrained(folder, vae=None)`, and its codec.

    model_index.json, transformer/, text_encoder/, tokenizer/, scheduler/    stock diffusers and transformers
    codec/                                                                   basis, mean and scale of the linear codec
    card.json                                                                geometry and measured failure rates

Stock AutoencoderKLWan is absent on purpose (docs/adr/0001): the stock pipeline samples latents (`output_type="latent"`)
and the codec turns them into pixels.
"""

import json
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from reelign.playground import codec, tables, tiny

SHIFT = 3.0
"""Time shift of the sampling schedule."""
FOLDER = Path(__file__).parent / "pipeline"


def save(
    folder: Path,
    transformer: WanTransformer3DModel,
    text: UMT5EncoderModel,
    words: PreTrainedTokenizerFast,
    blocks: codec.LinearCodec,
) -> None:
    """Write the generator as a stock pipeline folder."""
    import diffusers

    folder.mkdir(parents=True, exist_ok=True)
    transformer.save_pretrained(folder / "transformer")
    text.save_pretrained(folder / "text_encoder")
    words.save_pretrained(folder / "tokenizer")
    tiny.scheduler(SHIFT).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "WanPipeline",
        "_diffusers_version": diffusers.__version__,
        "boundary_ratio": None,
        "expand_timesteps": False,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": [None, None],
        "vae": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    save_codec(folder / "codec", blocks)
    card = {"width": tables.WIDTH, "height": tables.HEIGHT, "frames": tables.FRAMES, "fps": tables.FPS}
    card |= {"shift": SHIFT, "text_length": tiny.TEXT_LENGTH}
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def save_codec(folder: Path, blocks: codec.LinearCodec) -> None:
    """Write a linear codec as safetensors and JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"basis": blocks.basis.contiguous(), "mean": blocks.mean.contiguous()}, folder / "codec.safetensors")
    config = {"_class_name": "LinearCodec", "time": codec.TIME, "space": codec.SPACE, "scale": blocks.scale}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_codec(folder: Path) -> codec.LinearCodec:
    """Read a linear codec written by `save_codec`."""
    tensors = load_file(folder / "codec.safetensors")
    scale = json.loads((folder / "config.json").read_text())["scale"]
    return codec.LinearCodec(tensors["basis"].to(torch.float32), tensors["mean"].to(torch.float32), scale)
