"""The tiny generator's parts, stock Wan transformer and autoencoder, a tiny UMT5, a word tokenizer; and its folder."""

import copy
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from reelign.playground.world import grammar, tables

CHANNELS = 64
TEXT_WIDTH = 128
TEXT_LENGTH = 24
"""Words a caption can have, its end mark included; longer prompts are cut."""
SHIFT = 3.0
"""Time shift of the sampling schedule."""


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the grammar's vocabulary: lower case, punctuation dropped."""
    words = ("<pad>", "</s>", "<unk>", *grammar.vocabulary())
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(",", " "), normalizers.Replace(".", " ")]
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=TEXT_LENGTH
    )


def text_encoder(vocabulary: int) -> UMT5EncoderModel:
    """A two-layer UMT5 encoder, 128 wide; relative positions tell "first left then up" from "first up then left"."""
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=TEXT_WIDTH,
        d_kv=32,
        num_heads=4,
        d_ff=256,
        num_layers=2,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=24,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config)


def transformer() -> WanTransformer3DModel:
    """A six-layer Wan transformer, 192 wide, one token a latent element: 48 tokens a clip."""
    return WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=4,
        attention_head_dim=48,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=128,
        ffn_dim=768,
        num_layers=6,
        rope_max_seq_len=64,
    )


def autoencoder() -> AutoencoderKLWan:
    """A Wan autoencoder of the residual kind: 4 x 8 x 8 pixels to one latent element, 2 x 2 of them by patches."""
    return AutoencoderKLWan(
        base_dim=12,
        decoder_base_dim=12,
        z_dim=CHANNELS,
        dim_mult=[1, 4, 4],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[True, True],
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
    )


def embed(encoder: UMT5EncoderModel, words: PreTrainedTokenizerFast, texts: list[str], length: int) -> torch.Tensor:
    """Text features [b, length, width], zero after each text's end, as the stock Wan pipeline has them."""
    device = encoder.device
    tokens = words(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").to(device)
    hidden = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    return hidden * tokens.attention_mask[..., None]


def save(
    folder: Path,
    transformer: WanTransformer3DModel,
    text: UMT5EncoderModel,
    words: PreTrainedTokenizerFast,
    vae: AutoencoderKLWan,
) -> None:
    """Write the generator as a folder that stock `WanPipeline.from_pretrained` loads; card.json says its geometry.

    The transformer and the autoencoder are kept in float16, which halves the package and is far below their own noise.
    """
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)
    small, painter = (copy.deepcopy(module).half() for module in (transformer, vae))
    WanPipeline(words, text, painter, scheduler, small).save_pretrained(folder)  # type: ignore[arg-type]
    card = {"width": tables.WIDTH, "height": tables.HEIGHT, "frames": tables.FRAMES, "fps": tables.FPS}
    card |= {"shift": SHIFT, "text_length": TEXT_LENGTH}
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
