"""Prompt features of Wan pipelines, computed once per text."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import torch
import transformers
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reelign import pretrained
from reelign.errors import BadCheckpoint, BadData, cut
from reelign.models._guest import Guest
from reelign.pretrained import Part, configs
from reelign.store import Store

TOKENIZERS = ("T5TokenizerFast", "T5Tokenizer", "TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes that tokenizers of T5 and UMT5 are saved as."""


class TextFeatures:
    """A frozen UMT5 and its tokenizer. Each text is encoded alone, so neighbours cannot change it."""

    def __init__(
        self,
        words: PreTrainedTokenizerBase,
        encoder: Part,
        length: int,
        device: torch.device,
        dtype: torch.dtype,
        identity: str,
    ) -> None:
        """Load the encoder; `length` tokens a text. `identity` says all that the features of a text hang on."""
        self._words, self._length, self._device, self._identity = words, length, device, identity
        self._width: int = encoder.config.d_model
        self.encoder = Guest(pretrained.load(encoder, dtype=dtype), device)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], store: Store) -> tuple[Float[Tensor, "_ d"], ...]:
        """Features of each text's own tokens, on the device and as they are computed; `store` keeps them.

        Raises:
            BadData: a text is no valid Unicode.
        """
        made = {text: store.get(self._key(text), partial(self._encode, text)) for text in dict.fromkeys(texts)}
        known = {text: value.to(self._device) for text, value in made.items()}
        return tuple(known[text] for text in texts)

    def padded(self, features: Sequence[Float[Tensor, "_ d"]]) -> Float[Tensor, "b n d"]:
        """Features of several texts in float32, zero after each text's end, as the stock Wan pipeline feeds them."""
        found = torch.zeros(len(features), self._length, self._width, device=self._device)
        for row, own in zip(found, features, strict=True):
            row[: len(own)] = own
        return found

    def _key(self, text: str) -> str:
        return f"text|{self._identity}|{_content(text)}"

    def _encode(self, text: str) -> Float[Tensor, "m d"]:
        """Features of a text's own tokens, as they are computed."""
        tokens = self._words(
            cleaned(text),
            padding="max_length",
            max_length=self._length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self._device)
        with self.encoder.at_work() as encoder:
            hidden = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return hidden[0, : int(tokens.attention_mask.sum())]


@lru_cache(maxsize=2**14)
def _content(text: str) -> str:
    """What the encoder sees of a text, as a digest."""
    return hashlib.sha256(cleaned(text).encode()).hexdigest()


def cleaned(text: str) -> str:
    """A text as the stock pipeline gives it to the tokenizer.

    Raises:
        BadData: it is no valid Unicode.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadData(
            f"the text {cut(ascii(text), 60)} holds half a character (a lone surrogate); write it as UTF-8."
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
            f"{str(folder)!r} is a {cut(kind, 60)} by its model_index.json; a Wan pipeline has one of "
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
