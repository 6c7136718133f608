"""Wan's transformer as it computes here: its dtypes, and samples that do not depend on how many there are at once."""

from typing import Any

import torch
from diffusers import WanTransformer3DModel
from safetensors import safe_open
from torch import Tensor, nn

from reelign import pretrained
from reelign.pretrained import Part

ORIGINAL = (
    ("attn1.to_out.0", "self_attn.o"),
    ("attn1.to_", "self_attn."),
    ("attn2.to_out.0", "cross_attn.o"),
    ("attn2.to_", "cross_attn."),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("proj_out", "head.head"),
)
"""Parts of layers' names in diffusers, and in Wan's own code."""
ROUNDED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers of which `bfloat16.products` takes the weights in bfloat16, whatever they are kept in."""
ROWS = 8
"""CPU matrix kernels round the rows that do not fill a tile of this height in another way than those that do."""


def rounded(network: nn.Module) -> None:
    """Bring a network without weights to the dtypes that `load` gives it."""
    whole = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    for name, module in network.named_modules():
        if isinstance(module, ROUNDED) and not whole & set(name.split(".")):
            module.to(torch.bfloat16)


def load(part: Part) -> Any:
    """A part whose products are in bfloat16, with the same results in half the memory as if it were kept in float32.

    What its class keeps in float32, and weights that are no factors of such products, stay float32.

    Raises:
        BadCheckpoint: see `pretrained.load`.
    """
    network = pretrained.load(part, torch_dtype=torch.bfloat16)
    for name, parameter in network.named_parameters():
        owner = network.get_submodule(name.rpartition(".")[0])
        if parameter.dtype != torch.float32 and not isinstance(owner, ROUNDED):
            with safe_open(part.folder / part.weights.tensors[name].file, framework="pt") as content:
                parameter.data = content.get_tensor(name).float()
    return network


def float_angles(network: WanTransformer3DModel) -> None:
    """Angles in float64 would double the cost of attention on CPUs."""
    for name, buffer in network.rope.named_buffers():
        setattr(network.rope, name, buffer.float())


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
