"""Large values in pages of their own, which go back to the system with them.

On the heap, which torch fills with what it computes in between, even a tensor's own record of a few bytes would keep a
hole open that is as large as what was computed.
"""

import mmap
from collections.abc import Sequence

import torch
from torch import Tensor


class Pages:
    """Room for a value in main memory. What is kept for long is kept so, as no part of it lies on the heap."""

    __slots__ = ("_dtype", "_pages", "_shape", "size")

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        """Zeros, `size` bytes of them."""
        self._dtype, self._shape = dtype, torch.Size(shape)
        self.size = max(1, -(-self._shape.numel() * dtype.itemsize // mmap.PAGESIZE)) * mmap.PAGESIZE
        self._pages = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def tensor(self) -> Tensor:
        """The value, to read and to write; the pages stay as long as it does."""
        count = self._shape.numel()
        if not count:
            return torch.empty(self._shape, dtype=self._dtype)
        return torch.frombuffer(self._pages, dtype=self._dtype, count=count).reshape(self._shape)


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor to be written to; of other devices than the CPU torch itself looks after the memory."""
    return Pages(shape, dtype).tensor() if device.type == "cpu" else torch.empty(*shape, dtype=dtype, device=device)
