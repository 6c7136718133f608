"""Telling a broken model from a sound one, and naming what is broken."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reelign.errors import RunStopped


def finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite; one synchronisation, and no memory of the tensor's size."""
    # A sum is finite only if all its terms are. Where it overflows by itself, each value is looked at.
    values = values.detach()
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def broken_weight(experts: Mapping[str, nn.Module]) -> str | None:
    """The first weight of networks by name that is not finite, trainable or not, as in "NaN in 'proj_out.weight'"."""
    for expert, network in experts.items():
        for name, value in network.state_dict().items():
            if value.is_floating_point() and not finite(value):
                # As the model folder calls it: an adapter renames the layer it wraps.
                plain = name.replace(".base_layer", "")
                return f"{kind(value)} in {f'{expert}/{plain}' if expert else plain!r}"
    return None


def first_broken(value: Any, path: str) -> str | None:
    """The path of the first float tensor inside a batch that is not finite, as in "batch.trajectories.x0"."""
    if isinstance(value, Tensor):
        return path if value.is_floating_point() and not finite(value) else None
    names = getattr(value, "__dataclass_fields__", ())
    return next((found for n in names if (found := first_broken(getattr(value, n), f"{path}.{n}"))), None)


def kind(values: Tensor) -> str:
    """What makes values not finite, in a word."""
    return "NaN" if bool(torch.isnan(values).any()) else "infinity"


def refuse(values: Tensor, what: str, experts: Mapping[str, nn.Module], hint: str) -> None:
    """Stop at values that are not finite, naming the weights if they are the cause.

    Args:
        values: what a network, or something after it, made.
        what: these values, as in "the sampled latents".
        experts: networks by name, whose weights may be broken.
        hint: what to look at where they are not.

    Raises:
        RunStopped: naming the first broken weight, or these values.
    """
    if finite(values):
        return
    broken = broken_weight(experts)
    if broken:
        raise RunStopped(f"the model's weights hold {broken}, so nothing it makes can be used; give it sound weights.")
    raise RunStopped(f"{what} hold {kind(values)}, although all weights of the network are finite; {hint}.")
