"""Everything in this process on one device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field

from reelign.errors import BadConfig, shown
from reelign.parts import Settings
from reelign.runtime import malloc
from reelign.runtime.local_work import LocalWork, Sampling
from reelign.runtime.work import StageSpec
from reelign.store import StoreConfig


class RuntimeConfig(Settings):
    """Where a run runs."""

    name: Literal["local"] = "local"
    """One process, one device."""
    device: str = "auto"
    """auto is cuda where there is one, else cpu."""
    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads of torch; 0 leaves torch's choice."""
    store: StoreConfig = StoreConfig()
    """Text features and latents of clips, each computed once."""
    offload: Literal["auto"] | bool = "auto"
    """Whether text encoder and codec lie in main memory while the network computes, and come to the device once between
    two passes of it. Auto is so where they take more than a tenth of a CUDA device, and main memory has room for them
    twice."""


class Local(Sampling):
    """The in-process runtime."""

    work: LocalWork | None = None
    """That of the running stage."""

    @contextmanager
    def stage(self, spec: StageSpec) -> Iterator[LocalWork]:
        """Start a stage: fresh optimizer, and the present weights in each frozen role that the method needs.

        At the end of the context all that the stage needed is dropped; if it ends well, its averaged weights stay.
        """
        self.work = LocalWork(self.model, spec)
        try:
            yield self.work
            if self.work.learner:
                self.work.learner.settle()
        finally:
            self.model.reference.keep(())
            self.work = None


def resolve(config: RuntimeConfig) -> torch.device:
    """The device of a runtime config; changes nothing.

    Raises:
        BadConfig: torch has no such device, or none that can hold a tensor here.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return present("runtime.device", config.device, "auto or ")


def present(where: str, name: str, also: str = "") -> torch.device:
    """A device by its name, which a setting gives, if it can hold a tensor.

    Raises:
        BadConfig: torch has no such device, or none that can hold a tensor here; `also` is what is allowed besides.
    """
    try:
        named = torch.device(name)
        torch.zeros(1, device=named).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # each kind of device has its own way to be absent
        seen = torch.cuda.device_count()
        here = f"cpu or cuda ({seen} there)" if seen else "cpu, as torch sees no CUDA device"
        raise BadConfig(f"{where} is {shown(name)}, which cannot hold a tensor here; use {also}{here}.") from error
    return torch.device("cpu") if named.type == "cpu" else named


def device(config: RuntimeConfig) -> torch.device:
    """Resolve the device of a runtime config, and set up the process for it: torch's threads, how memory is kept."""
    if config.threads:
        torch.set_num_threads(config.threads)
    resolved = resolve(config)
    if resolved.type == "cpu":
        malloc.keep_freed()
    return resolved
