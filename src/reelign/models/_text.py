"""Prompt features of Wan pipelines, computed once per text."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from jaxtyping import Float
from torch import Tensor
from transformers import AutoTokenizer, UMT5EncoderModel

from reelign.errors import BadCheckpoint


class TextCache:
    """A frozen UMT5 and its tokenizer. Owns the cache; each text is encoded alone, so neighbours cannot change it."""

    def __init__(self, folder: Path, length: int, device: torch.device, dtype: torch.dtype) -> None:
        """Load from a pipeline folder; `length` tokens a text."""
        _refuse_code(folder / "text_encoder" / "config.json")
        self._words = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        self._encoder = UMT5EncoderModel.from_pretrained(
            folder / "text_encoder", dtype=dtype, local_files_only=True, use_safetensors=True
        )
        self._encoder.requires_grad_(False).eval().to(device)
        self._length = length
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "b n d"]:
        """Features, zero after each text's end, as the stock Wan pipeline feeds them."""
        for text in texts:
            if text not in self._known:
                self._known[text] = self._encode(text)
        return torch.stack([self._known[t] for t in texts])

    def _encode(self, text: str) -> Tensor:
        tokens = self._words(
            prompt_clean(text), padding="max_length", max_length=self._length, truncation=True, return_tensors="pt"
        ).to(self._encoder.device)
        hidden = self._encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return (hidden * tokens.attention_mask[..., None])[0].float()


def _refuse_code(config: Path) -> None:
    """Refuse a transformers config that could make loading run code."""
    if not config.is_file():
        raise BadCheckpoint(f"{str(config.parent.parent)!r} has no {config.parent.name}/{config.name}; give a diffusers pipeline folder.")
    keys = json.loads(config.read_text())
    bad = [k for k in keys if k == "auto_map" or (k.startswith("_") and k not in ("_name_or_path",))]
    if bad or keys.get("model_type") != "umt5":
        raise BadCheckpoint(
            f"{str(config)!r} is not a plain UMT5 config (model_type {keys.get('model_type')!r}, keys {bad}); "
            "Reelign loads configs that cannot run code only."
        )
