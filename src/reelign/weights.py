"""What model families share: trainable weights and references. No family repeats it, none inherits it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


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
    """Frozen weights by role. Owns copies of the trainable weights; nothing else mutates them.

    With a LoRA that still is the identity, no copy is kept: switching the adapter off gives the base exactly.
    """

    def __init__(self, network: nn.Module) -> None:
        """Start without any."""
        self._network = network
        self._weights: dict[str, dict[str, Tensor]] = {}
        self._adapter_off: set[str] = set()
        self._active = ""

    @property
    def roles(self) -> tuple[str, ...]:
        """Those for which `start` or `load` has been called."""
        return tuple(sorted({*self._weights, *self._adapter_off}))

    @property
    def adapter_off(self) -> tuple[str, ...]:
        """The roles that are the network with its adapter switched off."""
        return tuple(sorted(self._adapter_off))

    def start(self, role: str = "reference") -> None:
        """Make the present weights those of a role."""
        own = trainable(self._network)
        ups = [p for name, p in own.items() if "lora_B" in name]
        self._adapter_off.discard(role)
        self._weights.pop(role, None)
        if ups and not any(bool(p.detach().any()) for p in ups):
            self._adapter_off.add(role)
        else:
            self._weights[role] = {n: p.detach().clone() for n, p in own.items()}

    def keep(self, roles: Collection[str]) -> None:
        """Drop all other roles; a copy of the weights is worth as much memory as the weights."""
        self._weights = {role: weights for role, weights in self._weights.items() if role in roles}
        self._adapter_off &= set(roles)

    @torch.no_grad()
    def follow(self, decay: float, role: str = "reference") -> None:
        """Move a role's weights towards the present ones."""
        own = trainable(self._network)
        if role in self._adapter_off:
            # An adapter that adds nothing: the same downs, and ups of zero.
            self._adapter_off.discard(role)
            kept = {n: torch.zeros_like(p) if "lora_B" in n else p.detach().clone() for n, p in own.items()}
            self._weights[role] = kept
        for name, value in self._weights[role].items():
            value.lerp_(own[name], 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The kept weights as "role/name"; none of a role whose adapter is simply switched off."""
        return {f"{role}/{n}": t for role, weights in self._weights.items() for n, t in weights.items()}

    def load(self, tensors: Mapping[str, Tensor], adapter_off: Sequence[str]) -> None:
        """Restore what `state` and `adapter_off` gave."""
        device = next(self._network.parameters()).device
        self._adapter_off, self._weights = set(adapter_off), {}
        for key, value in tensors.items():
            role, _, name = key.partition("/")
            self._weights.setdefault(role, {})[name] = value.to(device)

    @contextmanager
    def on(self, role: str = "reference") -> Iterator[None]:
        """Within this context `call` uses the weights of a role."""
        assert role in self.roles, f"the runtime starts {role!r} for every method that needs it"
        before, self._active = self._active, role
        if role in self._adapter_off:
            self._network.disable_adapters()  # type: ignore[operator]
        try:
            yield
        finally:
            self._active = before
            if role in self._adapter_off:
                self._network.enable_adapters()  # type: ignore[operator]

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network with the present weights, or within `on` with those of its role."""
        if self._active in self._weights:
            return functional_call(self._network, self._weights[self._active], args, kwargs)
        return self._network(*args, **kwargs)
