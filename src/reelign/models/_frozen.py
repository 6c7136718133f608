"""A network that does not train, in bfloat16 as far as products in bfloat16 round its weights anyway."""

from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from reelign import pretrained
from reelign.pretrained import Part

ROUNDED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers of which `bfloat16.products` takes the weights in bfloat16, whatever they are kept in."""


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
