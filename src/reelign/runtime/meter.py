"""Compute in units that no machine and no batch size changes: forward passes of the network over one sample."""

from typing import Any

import torch
from torch import Tensor, nn

FORWARD, TRAINED, RECOMPUTED = 1, 3, 4
"""A sample without gradient; with it (a backward pass costs two forward passes); with activations computed twice."""


class Meter:
    """Counts the forward-units of networks, whoever calls them and with whatever weights.

    A call costs its samples, and guidance makes two of each; times 3 if its result carries a gradient (4 where the
    backward pass computes activations again) and 1 if not. A call is charged when it is made: a result that carries a
    gradient costs 3 even if no backward pass ever follows, and one that a rollout keeps for a later update costs 3
    once, since the update makes no second forward pass. Text encoding and decoding cost nothing.
    """

    def __init__(self, *networks: nn.Module) -> None:
        self.units = 0
        for network in networks:
            network.register_forward_hook(self._count, with_kwargs=True)

    def _count(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if torch._C._current_graph_task_id() != -1:
            return  # within a backward pass: computed again, and charged with the call
        samples = next(len(value) for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        self.units += samples * (_trained(network) if _carries_gradient(output) else FORWARD)


def _trained(network: nn.Module) -> int:
    again = any(getattr(module, "gradient_checkpointing", False) for module in network.modules())
    return RECOMPUTED if again else TRAINED


def _carries_gradient(output: Any) -> bool:
    """Of a tensor, or of the first in a tuple."""
    first = output[0] if isinstance(output, tuple) else output
    return isinstance(first, Tensor) and first.requires_grad
