"""Prompt features of Wan pipelines, computed once per text."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from jaxtyping import Float
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel

from reelign import folders
from reelign.errors import BadCheckpoint


class TextCache:
    """A frozen UMT5 and its tokenizer. Owns the cache; each text is encoded alone, so neighbours cannot change it."""

    def __init__(self, folder: Path, length: int, device: torch.device, dtype: torch.dtype) -> None:
        """Load from a pipeline folder; `length` tokens a text."""
        _refuse_code(folder / "text_encoder" / "config.json", "umt5")
        _refuse_code(folder / "tokenizer" / "tokenizer_config.json", None)
        self._words = _tokenizer(folder / "tokenizer")
        self._encoder = folders.load(UMT5EncoderModel, folder / "text_encoder", dtype=dtype)
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


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BadCheckpoint(f"{str(folder)!r} cannot be read as a tokenizer: {reason.rstrip('.')}.") from error


def _refuse_code(config: Path, model_type: str | None) -> None:
    """Refuse a transformers config that could make loading run code, or that is of another model."""
    keys = folders.read_json(config)
    bad = [k for k in keys if k == "auto_map" or (k.startswith("_") and k != "_name_or_path")]
    if bad:
        raise BadCheckpoint(
            f"{str(config)!r} has the keys {', '.join(bad)}; Reelign loads configs that cannot run code only."
        )
    if keys.get("model_type") != model_type:
        raise BadCheckpoint(
            f"{str(config)!r} is of model type {keys.get('model_type')!r}; Wan pipelines have {model_type!r}."
        )
