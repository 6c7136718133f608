"""What model families share: trainable weights, adapters, references. No family repeats it, none inherits it.

A family gives its networks as experts, by name; where there is one, its name is empty. Weights of several are called
"expert/name", those of one by their names alone.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call

Experts = Mapping[str, nn.Module]


@runtime_checkable
class Adapter(Protocol):
    """What trains beside a frozen network. It may keep nothing of a network: one is attached to all experts."""

    form: Any
    """Its settings without what only the start of a run reads: how a run that is resumed builds it."""

    def attach(self, network: nn.Module) -> None:
        """Add the parameters that train, in float32; all that is there is frozen and may be in bfloat16."""
        ...

    def neutral(self, network: nn.Module) -> Mapping[str, Tensor]:
        """Values of some of its trainable parameters, by name, at which it adds nothing whatever the others are.

        Empty where there are none: a reference is then always a copy.
        """
        ...

    def off(self, network: nn.Module) -> AbstractContextManager[None]:
        """Within this context the network is the base, bit for bit."""
        ...

    def merged(self, network: nn.Module) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """How each weight of the base that it changes, by its name in the base, becomes one that does without it.

        Tensors are float32 on the host; a new one is given, of the same shape. Empty for what cannot be merged: an
        exported pipeline is then the base.
        """
        ...

    def export(self, network: nn.Module, folder: Path) -> None:
        """Write what it learnt into a folder of its own, in float32."""
        ...


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a network that an update changes, by name, in a fixed order."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def of_experts(experts: Experts) -> dict[str, nn.Parameter]:
    """The same of all experts."""
    return {_named(expert, n): p for expert, network in experts.items() for n, p in trainable(network).items()}


def expert_of(name: str) -> str:
    """Whose weight it is, by a name of `of_experts`."""
    return name.rpartition("/")[0]


def _named(expert: str, name: str) -> str:
    return f"{expert}/{name}" if expert else name


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


def load_trainable(experts: Experts, tensors: Mapping[str, Tensor]) -> None:
    """Copy values into the trainable parameters, which must be exactly these names and shapes."""
    own = of_experts(experts)
    assert own.keys() == tensors.keys(), "the checkpoint was checked against the model before"
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


class Reference:
    """Frozen weights by role. Owns copies of the trainable weights; nothing else mutates them.

    With an adapter that still adds nothing, no copy is kept: switching it off gives the base exactly.
    """

    def __init__(self, experts: Experts, adapter: Adapter | None = None) -> None:
        """Start without any; `adapter` is what is attached to the experts, if anything is."""
        self._experts, self._adapter = experts, adapter
        self._weights: dict[str, dict[str, Tensor]] = {}
        self._adapter_off: set[str] = set()
        self._active = ""
        self._switched_off = ExitStack()
        """While the active role is the base."""

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
        own, neutral = of_experts(self._experts), self._neutral()
        self._adapter_off.discard(role)
        self._weights.pop(role, None)
        if neutral and all(torch.equal(own[name], value) for name, value in neutral.items()):
            self._adapter_off.add(role)
        else:
            self._weights[role] = _copied(own)

    def _neutral(self) -> dict[str, Tensor]:
        """The values of weights at which the adapter adds nothing to any expert; none where there are no such."""
        if self._adapter is None:
            return {}
        each = {expert: self._adapter.neutral(network) for expert, network in self._experts.items()}
        return {_named(expert, n): value for expert, own in each.items() for n, value in own.items()}

    def keep(self, roles: Collection[str]) -> None:
        """Drop all other roles; a copy of the weights is worth as much memory as the weights."""
        self._weights = {role: weights for role, weights in self._weights.items() if role in roles}
        self._adapter_off &= set(roles)

    @torch.no_grad()
    def follow(self, decay: float, role: str = "reference") -> None:
        """Move a role's weights towards the present ones."""
        own = of_experts(self._experts)
        if role in self._adapter_off:
            # An adapter that adds nothing: what makes it so at its neutral values, all else as it is now.
            self._adapter_off.discard(role)
            self._weights[role] = _copied({**own, **self._neutral()})
        for name, value in self._weights[role].items():
            value.lerp_(own[name], 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The kept weights as "role/name"; none of a role whose adapter is simply switched off."""
        return {f"{role}/{n}": t for role, weights in self._weights.items() for n, t in weights.items()}

    def load(self, tensors: Mapping[str, Tensor], adapter_off: Sequence[str]) -> None:
        """Restore what `state` and `adapter_off` gave."""
        own = of_experts(self._experts)
        self._adapter_off, self._weights = set(adapter_off), {}
        for key, value in tensors.items():
            role, _, name = key.partition("/")
            self._weights.setdefault(role, {})[name] = value.to(own[name].device)

    @contextmanager
    def on(self, role: str = "reference") -> Iterator[None]:
        """Within this context `call` uses the weights of a role."""
        assert role in self.roles, f"the runtime starts {role!r} for every method that needs it"
        before = self._active
        self._become(role)
        try:
            yield
        finally:
            self._become(before)

    def _become(self, role: str) -> None:
        self._active = role
        self._switched_off.close()
        if role in self._adapter_off and self._adapter is not None:
            for network in self._experts.values():
                self._switched_off.enter_context(self._adapter.off(network))

    def call(self, *args: Any, expert: str = "", **kwargs: Any) -> Any:
        """Run an expert with the present weights, or within `on` with those of its role."""
        network = self._experts[expert]
        if self._active in self._weights:
            own = {n.rpartition("/")[2]: t for n, t in self._weights[self._active].items() if expert_of(n) == expert}
            return functional_call(network, own, args, kwargs)
        return network(*args, **kwargs)
