"""What model families share: trainable weights, LoRA adapters, references. No family repeats it, none inherits it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.func import functional_call

from reelign.errors import BadConfig


class LoraConfig(BaseModel):
    """A low-rank adapter (peft)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=32, ge=1)
    alpha: int | None = None
    """Scale numerator; the default is the rank, a scale of 1."""
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
    """Names (suffixes) of the linear layers that get an adapter."""


def attach_lora(network: nn.Module, config: LoraConfig, seed: int = 0) -> None:
    """Freeze a diffusers network and add a fresh adapter called "default"; its output does not change.

    Raises:
        BadConfig: a target that matches no linear layer.
    """
    from peft import LoraConfig as PeftConfig

    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    missing = [t for t in config.targets if not any(n == t or n.endswith("." + t) for n in names)]
    if missing or not config.targets:
        kinds = sorted({n.split(".", 2)[-1] for n in names if n.count(".") >= 2})
        raise BadConfig(
            f"model.lora.targets: {missing or 'an empty list'} matches no linear layer of {type(network).__name__}; "
            f"its layers end in: {', '.join(kinds[:24])}."
        )
    network.requires_grad_(False)
    peft = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha or config.rank,
        target_modules=list(config.targets),
        init_lora_weights=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.add_adapter(peft)  # type: ignore[operator]


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters an update changes, by name, in a fixed order."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def load_trainable(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy values into the trainable parameters, which must be exactly these names and shapes."""
    own = trainable(network)
    assert own.keys() == tensors.keys(), "the checkpoint was checked against the model before"
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


class Reference:
    """The frozen weights a stage is compared with. Owns copies of the trainable weights; nothing else mutates them.

    With a LoRA that still is the identity, no copy is kept: switching the adapter off gives the base exactly.
    """

    def __init__(self, network: nn.Module) -> None:
        """Start without a reference."""
        self._network = network
        self._weights: dict[str, Tensor] | None = None
        self._adapter_off = False
        self._active = False

    @property
    def exists(self) -> bool:
        """Whether `start` or `load` has been called."""
        return self._adapter_off or self._weights is not None

    def start(self) -> None:
        """Make the present weights the reference."""
        own = trainable(self._network)
        ups = [p for name, p in own.items() if "lora_B" in name]
        self._adapter_off = bool(ups) and not any(bool(p.detach().any()) for p in ups)
        self._weights = None if self._adapter_off else {n: p.detach().clone() for n, p in own.items()}

    def state(self) -> dict[str, Tensor]:
        """The kept weights; empty when the adapter is simply switched off, or when there is no reference."""
        return dict(self._weights or {})

    def load(self, tensors: Mapping[str, Tensor], adapter_off: bool) -> None:
        """Restore what `state` gave."""
        device = next(self._network.parameters()).device
        self._adapter_off = adapter_off
        self._weights = {n: t.to(device) for n, t in tensors.items()} or None

    @property
    def adapter_off(self) -> bool:
        """Whether the reference is the network with its adapter switched off."""
        return self._adapter_off

    @contextmanager
    def on(self) -> Iterator[None]:
        """Within this context `call` uses the reference's weights."""
        assert self.exists, "the runtime starts a reference for every method that needs one"
        self._active = True
        if self._adapter_off:
            self._network.disable_adapters()  # type: ignore[operator]
        try:
            yield
        finally:
            self._active = False
            if self._adapter_off:
                self._network.enable_adapters()  # type: ignore[operator]

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network with the present weights, or within `on` with the reference's."""
        if self._active and self._weights is not None:
            return functional_call(self._network, self._weights, args, kwargs)
        return self._network(*args, **kwargs)
