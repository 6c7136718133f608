"""An adapter from outside the package: the outputs of some linear layers, each times a gain of its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reelign.errors import BadConfig
from reelign.parts import PartConfig

FILE = "gains.safetensors"


class Config(PartConfig):
    target: str = "to_v"
    start: str | None = None


class Gain:
    def __init__(self, config: Config, network: nn.Module) -> None:
        self.start = Path(config.start) / FILE if config.start else None
        self.layers = [name for name, _ in network.named_modules() if name.endswith(f".{config.target}")]
        if not self.layers:
            raise BadConfig(f"model.adapter.target: no layer ends in {config.target!r}.")
        self.form = config.model_copy(update={"start": None})

    def attach(self, network: nn.Module) -> None:
        known = load_file(self.start) if self.start else {}
        for name in self.layers:
            layer = network.get_submodule(name)
            gain = known.get(name, torch.zeros(layer.out_features))
            layer.register_parameter("gain", nn.Parameter(gain.to(layer.weight.device)))
            layer.on = True
            layer.register_forward_hook(_scaled)

    def neutral(self, network: nn.Module) -> dict[str, Tensor]:
        return {f"{name}.gain": torch.zeros_like(network.get_submodule(name).gain) for name in self.layers}

    @contextmanager
    def off(self, network: nn.Module) -> Iterator[None]:
        self._switch(network, False)
        try:
            yield
        finally:
            self._switch(network, True)

    def _switch(self, network: nn.Module, on: bool) -> None:
        for name in self.layers:
            network.get_submodule(name).on = on

    def merged(self, network: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
        found: dict[str, Callable[[Tensor], Tensor]] = {}
        for name in self.layers:
            factor = 1 + network.get_submodule(name).gain.detach().cpu()
            found[f"{name}.weight"] = lambda base, by=factor: base * by[:, None]
            found[f"{name}.bias"] = lambda base, by=factor: base * by
        return found

    def export(self, network: nn.Module, folder: Path) -> None:
        save_file({n: network.get_submodule(n).gain.detach().cpu() for n in self.layers}, folder / FILE)


class Apart(Gain):
    """As if it could not be merged."""

    def merged(self, network: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
        return {}


def _scaled(layer: nn.Module, _: object, output: Tensor) -> Tensor:
    return output * (1 + layer.gain) if layer.on else output


def build(config: Config, network: nn.Module, original: Sequence[tuple[str, str]]) -> Gain:
    return Gain(config, network)


def apart(config: Config, network: nn.Module, original: Sequence[tuple[str, str]]) -> Apart:
    return Apart(config, network)
