"""What a network holds, and needs for a forward and backward pass, told from its form alone: not one weight is read.

The passes are made of fake tensors, which have all but values, on the CPU and with fused attention as devices have it.
"""

import copy
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Outline:
    """A model before its weights."""

    network: nn.Module
    """On the meta device, in the dtypes it is loaded in; `requires_grad` says what trains."""
    inputs: Callable[[int], tuple[tuple[int, ...], ...]]
    """Shapes of the network's arguments for so many samples."""
    beside: Mapping[str, int]
    """Bytes of what stands beside it on the device, such as a text encoder."""
    text: int
    """Bytes of one prompt's features."""
    bfloat16: bool = False
    """Whether products are in bfloat16."""


def size(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, on the meta device too."""
    return sum(each.numel() * each.element_size() for each in tensors)


def passes(outline: Outline, samples: int) -> tuple[int, int]:
    """Bytes of a forward and backward pass of so many samples, beside the weights.

    Returns:
        What autograd keeps between the two, and the most that lies there at once, gradients of what trains and
        intermediate results included. Kernels' own workspace is not.
    """
    network = copy.deepcopy(outline.network)
    with FakeTensorMode():
        inputs = [torch.empty(shape) for shape in outline.inputs(samples)]
        return measured(_faked(network), inputs, outline.bfloat16)


def measured(network: nn.Module, inputs: Iterable[Tensor], bfloat16: bool) -> tuple[int, int]:
    """The same of a network with weights, fake ones or real ones, on the CPU."""
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    with _Most() as most, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
        with _kept(own) as kept, torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            out = network(*inputs)
        (out if isinstance(out, Tensor) else out[0]).float().square().mean().backward()
    return sum(kept), most.bytes


@contextmanager
def _kept(own: set[int]) -> Iterator[list[int]]:
    """Sizes of what autograd saves meanwhile, but for weights; a list that is filled at the end."""
    storages: dict[int, torch.UntypedStorage] = {}  # held until then, so that no two are taken for one
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield sizes
    sizes += [storage.nbytes() for storage in storages.values()]


class _Most(TorchDispatchMode):
    """The most bytes that lie there at once of all that comes into being under it."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self._now = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        held = storage.nbytes()
        self._now += held
        self.bytes = max(self.bytes, self._now)
        weakref.finalize(storage, self._freed, held)

    def _freed(self, held: int) -> None:
        self._now -= held


def _faked(network: nn.Module) -> nn.Module:
    """A network of the meta device with fake weights on the CPU, in place."""
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                fake = torch.empty(weight.shape, dtype=weight.dtype)
                module._parameters[name] = nn.Parameter(fake, requires_grad=weight.requires_grad)
        for name, values in module._buffers.items():
            if values is not None:
                module._buffers[name] = torch.empty(values.shape, dtype=values.dtype)
    return network
