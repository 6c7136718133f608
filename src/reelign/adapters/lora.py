"""LoRA: a product of two thin matrices beside each of the chosen linear layers (arXiv 2106.09685), through peft."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from reelign.adapters import _lora_file
from reelign.adapters._lora_file import LoraFile
from reelign.errors import BadConfig, cut
from reelign.files import usual_mode
from reelign.parts import PartConfig

RANK = 32
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
_PART = "transformer"
"""What stock pipelines call the network that the matrices are for."""


class Config(PartConfig):
    """Which layers, and how wide."""

    name: str = "lora"
    rank: int | None = Field(default=None, ge=1)
    """The default is that of `start`, else 32."""
    alpha: float | None = Field(default=None, gt=0, le=1e6)
    """Scale numerator; the default is that of `start`, else the rank, a scale of 1."""
    targets: tuple[str, ...] | None = None
    """Names (suffixes) of the linear layers that get an adapter; the default is those of `start`, else the attention's
    and the feed-forward's."""
    start: str | None = None
    """An adapter to begin with: a *.safetensors file or its folder, with names as peft, diffusers, kohya or Wan's own
    code write them. It acts at the start as it did where it was trained, whatever `alpha`; a run that is resumed does
    not read it again."""


class Lora:
    """A LoRA that fits a network. It keeps nothing of the networks that it is attached to."""

    def __init__(self, config: Config, network: nn.Module, original: Sequence[tuple[str, str]]) -> None:
        linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
        self.start = _lora_file.read(config.start, linear, original) if config.start is not None else None
        self.rank = config.rank or (self.start.rank if self.start else RANK)
        self.targets = config.targets
        if self.targets is None:
            self.targets = tuple(self.start.layers) if self.start else TARGETS
        self.layers = _chosen(type(network).__name__, linear, self.targets)
        if self.start:
            _refuse_other(self.start, self.rank, self.layers)
        _refuse_wide(self.rank, {name: linear[name] for name in self.layers})
        alphas = {alpha for _, _, alpha in self.start.layers.values()} if self.start else set()
        self.alpha = config.alpha or (alphas.pop() if len(alphas) == 1 else float(self.rank))
        known = {"rank": self.rank, "alpha": self.alpha, "targets": self.targets, "start": None}
        self.form = config.model_copy(update=known) if self.start else config

    def attach(self, network: nn.Module) -> None:
        """Add the matrices, called "default", in float32; a fresh adapter does not change the network's output.

        Raises:
            BadCheckpoint: `start` holds numbers that are not finite.
        """
        from peft import LoraConfig as PeftConfig

        peft = PeftConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type] - peft only divides it by the rank
            target_modules=list(self.targets or ()),
            init_lora_weights=True,
        )
        with torch.random.fork_rng(), _passing_for_float32([network.get_submodule(name) for name in self.layers]):
            torch.manual_seed(0)
            network.add_adapter(peft)  # type: ignore[operator]
        if self.start:
            _lora_file.fill(network, self.start, self.alpha)

    def neutral(self, network: nn.Module) -> dict[str, Tensor]:
        """Ups of zero."""
        ups = {name: layer.lora_B["default"].weight for name, layer in self._layers(network).items()}
        return {f"{name}.lora_B.default.weight": torch.zeros_like(up) for name, up in ups.items()}

    @contextmanager
    def off(self, network: nn.Module) -> Iterator[None]:
        """Within this context the network is the base."""
        layers = self._layers(network).values()
        # `enable_adapters` of peft also looks at every parameter, which takes as long as a small network's pass.
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer in layers:
                layer._disable_adapters = False

    def _layers(self, network: nn.Module) -> dict[str, Any]:
        """Those of peft in a network that has it attached."""
        return {name: network.get_submodule(name) for name in self.layers}

    def merged(self, network: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
        """A layer's weight with its scaled product added."""
        return {f"{name}.weight": partial(_added, layer) for name, layer in self._layers(network).items()}

    def export(self, network: nn.Module, folder: Path) -> None:
        """Write the file that stock `load_lora_weights` reads, in float32."""
        from peft.utils import get_peft_model_state_dict

        tensors = get_peft_model_state_dict(network, adapter_name="default")
        about = network.peft_config["default"].to_dict()  # type: ignore[index] - a diffusers network's mapping
        # Sets have an order of their own in each process.
        notes = {f"{_PART}.{k}": sorted(v) if isinstance(v, set) else v for k, v in about.items()}
        with usual_mode(file := folder / _lora_file.NAME):
            save_file(
                {f"{_PART}.{name}": value.detach().cpu().contiguous() for name, value in tensors.items()},
                file,
                metadata={"format": "pt", _lora_file.NOTES: json.dumps(notes, indent=2, sort_keys=True)},
            )
            _order_notes(file)


def build(config: Config, network: nn.Module, original: Sequence[tuple[str, str]]) -> Lora:
    """Compare a LoRA with a network, which may lie on the meta device; of files only headers are read.

    Raises:
        BadConfig: targets that match no linear layer, or a rank that a layer or `start` does not have.
        BadCheckpoint: `start` is no adapter of this network.
    """
    return Lora(config, network, original)


def _chosen(kind: str, names: Mapping[str, nn.Linear], targets: Sequence[str]) -> tuple[str, ...]:
    """The layers that targets name, in the network's order."""
    by_target = {t: [n for n in names if n == t or n.endswith("." + t)] for t in targets}
    missing = [target for target, found in by_target.items() if not found]
    if missing or not targets:
        kinds = sorted({n.split(".", 2)[-1] for n in names if n.count(".") >= 2})
        given = cut(missing) if missing else "an empty list"
        raise BadConfig(
            f"model.adapter.targets: {given} matches no linear layer of {kind}; "
            f"its layers end in: {', '.join(kinds[:24])}."
        )
    found = {name for own in by_target.values() for name in own}
    return tuple(name for name in names if name in found)


def _refuse_other(start: LoraFile, rank: int, layers: Sequence[str]) -> None:
    """Refuse a recipe that asks for less than the adapter that it begins with has."""
    if start.rank != rank:
        raise BadConfig(
            f"model.adapter.rank: {rank}, but the adapter {str(start.file)!r} has rank {start.rank}; leave it out."
        )
    outside = [name for name in start.layers if name not in layers]
    if outside:
        raise BadConfig(
            f"model.adapter.targets: {outside[0]} is not among them, but the adapter in `start` has it; leave targets "
            "out."
        )


def _refuse_wide(rank: int, layers: Mapping[str, nn.Linear]) -> None:
    for name, module in layers.items():
        if rank > min(module.in_features, module.out_features):
            raise BadConfig(
                f"model.adapter.rank: {rank}, but the layer {name} is only {module.in_features} by "
                f"{module.out_features}; take a smaller rank."
            )


@contextmanager
def _passing_for_float32(layers: Sequence[Any]) -> Iterator[None]:
    """Let layers look as if they were in float32, which peft gives its matrices then, whatever they are kept in."""
    kept = [(layer, layer.weight) for layer in layers if layer.weight.dtype != torch.float32]
    for layer, weight in kept:
        stand_in = torch.zeros((), device=weight.device).expand(weight.shape)
        layer.weight = nn.Parameter(stand_in, requires_grad=False)
    try:
        yield
    finally:
        for layer, weight in kept:
            layer.weight = weight


def _added(layer: Any, base: Tensor) -> Tensor:
    return base + layer.get_delta_weight("default").detach().to(base.device)


def _order_notes(file: Path) -> None:
    """Sort the notes in a safetensors header; its writer leaves them in random order, and equal exports are equal."""
    with file.open("r+b") as content:
        length = int.from_bytes(content.read(8), "little")
        header = json.loads(content.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= length, "the same JSON in another order"
        content.seek(8)
        content.write(ordered.ljust(length))
