"""Frozen networks around the one that trains, which may lie in main memory while that one computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from threading import Lock
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class Guest(Generic[Network]):
    """A frozen network that comes to its device when it is first used. Owns its weights."""

    def __init__(self, network: Network, device: torch.device) -> None:
        self._network, self._device = network.requires_grad_(False).eval(), device
        self._home: dict[str, Tensor] = {}
        """Its weights in main memory, once it goes back there."""
        self._is_here, self._users, self._lock = False, 0, Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return sum(tensor.nbytes for _, tensor in self._tensors())

    @contextmanager
    def at_work(self) -> Iterator[Network]:
        """The network, on its device and staying there in this context."""
        with self._lock:
            if not self._is_here:
                self._arrive()
            self._users += 1
        try:
            yield self._network
        finally:
            with self._lock:
                self._users -= 1

    def leave_before(self, other: nn.Module) -> None:
        """From now on, be in main memory whenever `other` computes.

        All uses between two passes of `other` are served by one move. The weights never change, so leaving costs
        nothing: their copies on the device are dropped.
        """
        with self._lock:
            self._home = {name: tensor.data.cpu() for name, tensor in self._tensors()}
        other.register_forward_pre_hook(lambda *_: self._leave())

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        return chain(self._network.named_parameters(), self._network.named_buffers())

    def _arrive(self) -> None:
        for name, tensor in self._tensors():
            tensor.data = self._copy(self._home.get(name, tensor.data))
        self._is_here = True

    def _copy(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device)

    def _leave(self) -> None:
        with self._lock:
            if not self._is_here or self._users:  # another thread may decode meanwhile
                return
            for name, tensor in self._tensors():
                tensor.data = self._home[name]
            self._is_here = False
