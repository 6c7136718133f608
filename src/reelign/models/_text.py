"""Prompt features of Wan pipelines, computed once per text."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reelign import pretrained
from reelign.errors import BadCheckpoint, BadData
from reelign.pretrained import Part, configs

TOKENIZERS = ("T5TokenizerFast", "T5Tokenizer", "TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes that tokenizers of T5 and UMT5 are saved as."""
KEPT = 2**30
"""Bytes of features that are kept in main memory: 128 texts of Wan2.1, all of the packaged generator's."""


class TextCache:
    """A frozen UMT5 and its tokenizer. Owns the cache; each text is encoded alone, so neighbours cannot change it."""

    def __init__(
        self, words: PreTrainedTokenizerBase, encoder: Part, length: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Load the encoder; `length` tokens a text."""
        self._words, self._length, self._device = words, length, device
        self._encoder = pretrained.load(encoder, dtype=dtype)
        self._encoder.requires_grad_(False).eval().to(device)
        self._known: dict[str, Tensor] = {}
        """From the text that was used longest ago to that used last."""
        self._size = 0

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "b n d"]:
        """Features, zero after each text's end, as the stock Wan pipeline feeds them.

        Raises:
            BadData: a text is no valid Unicode.
        """
        found = {}
        for text in dict.fromkeys(texts):
            known = self._known.pop(text, None)
            if known is None:
                known = self._encode(text).cpu()
                self._size += known.nbytes
            found[text] = known
        self._known |= found
        while self._size > KEPT:
            self._size -= self._known.pop(next(iter(self._known))).nbytes
        return torch.stack([found[t] for t in texts]).to(self._device)

    def _encode(self, text: str) -> Tensor:
        tokens = self._words(
            cleaned(text),
            padding="max_length",
            max_length=self._length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self._encoder.device)
        hidden = self._encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return (hidden * tokens.attention_mask[..., None])[0].float()


def cleaned(text: str) -> str:
    """A text as the stock pipeline gives it to the tokenizer.

    Raises:
        BadData: it is no valid Unicode.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadData(
            f"the text {pretrained.shortened(ascii(text), 60)} holds half a character (a lone surrogate); "
            "write it as UTF-8."
        ) from error
    return prompt_clean(text)


def tokenizer(folder: Path, kind: str, vocabulary: int) -> PreTrainedTokenizerBase:
    """The tokenizer of a pipeline, by the stock class that its index names and the stock pipeline takes.

    Raises:
        BadCheckpoint: none that could be read, one that could run code, cannot pad or pads on the left, or one with
            more words than the text encoder has features for.
    """
    configs.tokenizer(folder / "tokenizer_config.json")
    if kind not in TOKENIZERS:
        raise BadCheckpoint(
            f"{str(folder)!r} is a {pretrained.shortened(kind, 60)} by its model_index.json; a Wan pipeline has one of "
            f"{', '.join(TOKENIZERS)}."
        )
    with pretrained.reading(folder, "tokenizer"):
        words = getattr(transformers, kind).from_pretrained(folder, local_files_only=True)
        highest = max(words.get_vocab().values())
        words("a", padding="max_length", max_length=2, truncation=True)
        words("a", verbose=False)  # the two ways in which it is called
    if words.padding_side != "right":
        raise BadCheckpoint(
            f"{str(folder)!r} pads on the {words.padding_side}, where Wan pipelines look for a text's features; set "
            "padding_side to right in its tokenizer_config.json."
        )
    if highest >= vocabulary:
        raise BadCheckpoint(
            f"{str(folder)!r} has words up to number {highest}, but the text encoder has features for {vocabulary}; "
            "the two are of different models."
        )
    return words


def overlong(words: PreTrainedTokenizerBase, length: int, texts: Sequence[str]) -> tuple[int, int]:
    """How many texts have more than `length` tokens, their end included, and how many tokens the longest has."""
    if not texts:
        return 0, 0
    counts = [len(ids) for ids in words([cleaned(t) for t in texts], verbose=False)["input_ids"]]
    return sum(count > length for count in counts), max(counts)
