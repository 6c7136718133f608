"""Matrix products in bfloat16, where that is asked for and where that is fast."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def fast(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32: CUDA, and CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return True
    # torch says it for itself only; without these instructions it emulates bfloat16, slower than float32.
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def products(device_type: str) -> Iterator[None]:
    """Autocast to bfloat16. On CPUs attention runs by plain products, for torch's fused one is slow there."""
    with warnings.catch_warnings(), torch.autocast(device_type, dtype=torch.bfloat16):
        # Norms keep float32 weights, and torch says once that they then have no fused kernel.
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
        if device_type != "cpu":
            yield
            return
        with sdpa_kernel(SDPBackend.MATH):
            yield
