"""The packaged generator on disk: a folder that stock `WanPipeline.from_pretrained` loads.

model_index.json, transformer/, vae/, text_encoder/, tokenizer/ and scheduler/ are stock; card.json says the geometry
and the measured failure rates. The transformer and the autoencoder are kept in float16, which halves the
package and is far below their own noise.
"""

import copy
import json
from pathlib import Path

from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from torch import nn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from reelign.playground.make import tiny
from reelign.playground.world import tables

SHIFT = 3.0
"""Time shift of the sampling schedule."""


def _half(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).half()


def save(
    folder: Path,
    transformer: WanTransformer3DModel,
    text: UMT5EncoderModel,
    words: PreTrainedTokenizerFast,
    vae: AutoencoderKLWan,
) -> None:
    """Write the generator as a stock pipeline folder."""
    pipeline = WanPipeline(words, text, _half(vae), tiny.scheduler(SHIFT), _half(transformer))  # type: ignore[arg-type]
    pipeline.save_pretrained(folder)
    card = {"width": tables.WIDTH, "height": tables.HEIGHT, "frames": tables.FRAMES, "fps": tables.FPS}
    card |= {"shift": SHIFT, "text_length": tiny.TEXT_LENGTH}
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
