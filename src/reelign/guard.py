"""Code that is not ours, called so that it changes neither what it is given nor how torch goes on afterwards."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from reelign.batches import Videos


def _set_default_device(device: torch.device) -> None:
    # An explicit "cpu" would slow every later call of torch; None is how it starts.
    torch.set_default_device(None if device.type == "cpu" else device)


_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _set_default_device),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (torch._C._get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (os.getcwd, os.chdir),
)
"""What a process does differently once it is set, as (read, write)."""


@contextmanager
def restored() -> Iterator[None]:
    """Within this context torch's settings and random state may be changed; afterwards they are as they were."""
    before = [read() for read, _ in _SETTINGS]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            for (read, write), value in zip(_SETTINGS, before, strict=True):
                if read() != value:
                    write(value)


class Lent:
    """Videos that several readers get in turn. One that writes into them spoils a copy of its own.

    The copy is made when it is first written to, so that readers who only read cost neither time nor memory, and all
    get the same tensor, by which what was seen in it can be remembered.
    """

    def __init__(self, videos: Videos) -> None:
        self._own = videos
        self._lent: Videos | None = None

    def videos(self) -> Videos:
        """For the next reader."""
        if self._lent is None or _touched(self._lent.frames):
            self._lent = Videos(_lazy_copy(self._own.frames), self._own.fps)
        return self._lent


def _lazy_copy(frames: Tensor) -> Tensor:
    try:
        return frames._lazy_clone()
    except RuntimeError:  # memory that torch did not allocate, such as a numpy array's, or what frames wait in
        return frames.clone()._lazy_clone()


def _touched(frames: Tensor) -> bool:
    """Whether a lent tensor was written to, or handed out as memory that can be (to numpy), or changed in shape."""
    own = not torch._C._is_cow_tensor(frames)  # type: ignore[attr-defined]
    return own or frames._version > 0 or frames.requires_grad
