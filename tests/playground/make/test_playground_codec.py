"""The packaged generator's latents: they keep what clips show, and come apart and together again."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reelign.playground.judge.verdict import psnr
from reelign.playground.make import codec, tiny
from reelign.playground.world import corpora, tables


def test_the_codec_keeps_clips_it_has_not_seen(blocks: codec.LinearCodec) -> None:
    clips = corpora.pretraining(200, 99).clips
    latents = blocks.encode(clips)
    assert latents.shape == (200, tiny.CHANNELS, (tables.FRAMES + 3) // codec.TIME, 4, 4)
    assert float(psnr(blocks.decode(latents), clips).mean()) >= 28
    assert 0.5 < float(latents.std()) < 2


@pytest.mark.parametrize("frames", [1, 5, 13, 17])
def test_blocks_come_apart_and_together_again(frames: int) -> None:
    video = torch.rand(2, frames, 3, 16, 24)
    cut = codec.blocks(video)
    assert cut.shape == (2, (frames + 3) // 4, 2, 3, 768)
    assert_close(codec.unblocks(cut), video)


def test_the_codec_is_a_projection(blocks: codec.LinearCodec, through_codec: Callable[[Tensor], Tensor]) -> None:
    assert_close(blocks.basis @ blocks.basis.T, torch.eye(tiny.CHANNELS), atol=1e-4, rtol=0)
    latents = blocks.encode(corpora.instruction(4, 0).clips)
    inner = torch.einsum("bcthw,cn->bthwn", latents / blocks.scale, blocks.basis) + blocks.mean
    again = torch.einsum("bthwn,cn->bcthw", inner - blocks.mean, blocks.basis) * blocks.scale
    assert_close(again, latents, atol=1e-4, rtol=1e-4)
