"""Memory in pages of its own."""

import gc
import mmap
from pathlib import Path

import torch

from reelign import pages
from reelign.pages import Pages

CPU = torch.device("cpu")


def _resident() -> int:
    """Bytes that the process has in main memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_a_value_is_read_as_it_was_written_and_shared() -> None:
    room = Pages((2, 3), torch.float32)
    room.tensor().copy_(torch.arange(6.0).reshape(2, 3))
    assert room.tensor().tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert Pages((0, 4), torch.int64).tensor().shape == (0, 4)
    assert pages.empty((), torch.float64, CPU).shape == ()


def test_pages_go_back_to_the_system_with_the_last_tensor() -> None:
    before, size = _resident(), 2**26
    value = pages.empty((size // 4,), torch.float32, CPU).fill_(1.0)
    part = value[:1]
    assert _resident() - before > size // 2
    del value
    assert _resident() - before > size // 2  # a view holds them
    del part
    gc.collect()
    assert _resident() - before < size // 2
