"""Samples that do not depend on how many are computed at once, on CPU."""

from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

ROWS = 8
"""CPU matrix kernels round the rows that do not fill a tile of this height in another way than those that do."""


def fill_tiles(network: WanTransformer3DModel) -> None:
    """Make a sample's velocity independent of its batch's size in float32 on CPU, by padding inputs of few rows.

    Only layers with one row a sample need it, the time embedding's, and the patch convolution, which takes another
    path for a batch of one. Without it micro-batches of 1 and 8 start 5e-6 apart, which sampling can amplify to 2e-4.
    The padding is zeros, so it adds nothing to a gradient.
    """
    embedder = network.condition_embedder
    for module, multiple in ((embedder.time_embedder, ROWS), (embedder.time_proj, ROWS), (network.patch_embedding, 2)):
        _pad(module, multiple)


def _pad(module: nn.Module, multiple: int) -> None:
    rows: list[int] = []

    def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Any, ...]:
        (x,) = args
        rows.append(x.shape[0])
        missing = -x.shape[0] % multiple
        return (torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x,)

    def after(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output[: rows.pop()]

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)
