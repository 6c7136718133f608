"""A model where it runs: on its device, with a store for what it encodes, and with guests that make room for it."""

import os
from pathlib import Path
from typing import Any, Literal

import torch

from reelign import parts
from reelign.parts import PartConfig
from reelign.protocols import VideoModel
from reelign.runtime.local import RuntimeConfig, device
from reelign.store import opened

STORE = ".store"
"""Below the folder of all runs."""
SMALL = 2**25
"""Weights of a network up to which its text encoder and codec compute faster than a disk reads."""


def build(config: PartConfig, runtime: RuntimeConfig, root: str | Path | None = None) -> VideoModel:
    """Build a model on the device of a runtime config, and set up the process for it.

    Args:
        config: the model's.
        runtime: where it runs, and what is kept of what it encodes.
        root: the folder of all runs, which share a store there; without one, or a place in `runtime`, features are kept
            in main memory alone.

    Raises:
        UserError: what the model refuses.
        BadConfig: there is no such device here.
    """
    model: Any = parts.build("model", config, device(runtime))
    networks = model.experts.values()
    small = sum(p.numel() for network in networks for p in network.parameters()) <= SMALL
    if hasattr(model, "store"):
        model.store = opened(runtime.store, None if small or root is None else Path(root) / STORE)
    guests = getattr(model, "guests", ())
    if leaves(runtime.offload, model.device, sum(guest.nbytes for guest in guests)):
        for guest in guests:
            for network in networks:
                guest.leave_before(network)
    return model


def leaves(wish: bool | Literal["auto"], where: torch.device, weight: int) -> bool:
    """Whether what encodes and decodes leaves the device while the network computes; `weight` is its bytes.

    Coming back costs a copy of the weights. Where a device has room that is wasted, so auto looks at its memory.
    """
    if where.type == "cpu" or not wish:
        return False
    if wish is True:
        return True
    return where.type == "cuda" and 10 * weight > _device_bytes(where) and 2 * weight < _host_bytes()


def _device_bytes(where: torch.device) -> int:
    return torch.cuda.get_device_properties(where).total_memory


def _host_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
