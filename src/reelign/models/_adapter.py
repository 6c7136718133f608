"""LoRA adapters: what a recipe asks for, compared with a network that may lie on the meta device, then attached."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import nn

from reelign import pretrained
from reelign.errors import BadCheckpoint, BadConfig
from reelign.parts import Settings
from reelign.pretrained.part import FLOATS
from reelign.soundness import finite

RANK = 32
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
ADAPTER = "pytorch_lora_weights.safetensors"
FILES = (ADAPTER, "adapter_model.safetensors")
"""What diffusers and peft call an adapter's file."""
PREFIX = re.compile(r"(base_model\.model\.|transformer\.|diffusion_model\.|lora_unet_|lora_transformer_)*")
KEY = re.compile(r"(.+?)\.(?:lora[._](?P<side>A|B|down|up)(?:\.default)?\.weight|alpha)")


class LoraConfig(Settings):
    """A low-rank adapter (peft)."""

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


@dataclass(frozen=True)
class Start:
    """An adapter's file, compared with a network."""

    file: Path
    layers: Mapping[str, tuple[str, str, float]]
    """By the network's name of a layer: the keys of the down and the up matrix, and alpha."""
    rank: int


@dataclass(frozen=True)
class Plan:
    """An adapter that fits a network."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    start: Start | None


def plan(network: nn.Module, config: LoraConfig, original: Sequence[tuple[str, str]]) -> Plan:
    """What `attach` will do to a network; nothing is changed, and of files only headers are read.

    Args:
        network: with weights, or on the meta device.
        config: what the recipe asks for.
        original: parts of layers' names here, and what the model's own code calls them; for adapters trained with it.

    Raises:
        BadConfig: targets that match no linear layer, or a rank that a layer or `start` does not have.
        BadCheckpoint: `start` is no adapter of this network.
    """
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    start = _start(pretrained.locate(config.start), linear, original) if config.start is not None else None
    rank = config.rank or (start.rank if start else RANK)
    targets = config.targets
    if targets is None:
        targets = tuple(start.layers) if start else TARGETS
    _refuse_targets(type(network).__name__, tuple(linear), targets)
    chosen = {n: m for n, m in linear.items() if any(n == t or n.endswith("." + t) for t in targets)}
    if start and start.rank != rank:
        raise BadConfig(
            f"model.lora.rank: {rank}, but the adapter {str(start.file)!r} has rank {start.rank}; leave it out."
        )
    outside = [name for name in start.layers if name not in chosen] if start else []
    if outside:
        raise BadConfig(
            f"model.lora.targets: {outside[0]} is not among them, but the adapter in `start` has it; leave targets out."
        )
    for name, module in chosen.items():
        if rank > min(module.in_features, module.out_features):
            raise BadConfig(
                f"model.lora.rank: {rank}, but the layer {name} is only {module.in_features} by {module.out_features}; "
                "take a smaller rank."
            )
    alphas = {alpha for _, _, alpha in start.layers.values()} if start else set()
    return Plan(rank, config.alpha or (alphas.pop() if len(alphas) == 1 else float(rank)), targets, start)


def _refuse_targets(kind: str, names: Sequence[str], targets: Sequence[str]) -> None:
    missing = [t for t in targets if not any(n == t or n.endswith("." + t) for n in names)]
    if missing or not targets:
        kinds = sorted({n.split(".", 2)[-1] for n in names if n.count(".") >= 2})
        given = pretrained.shortened(missing) if missing else "an empty list"
        raise BadConfig(
            f"model.lora.targets: {given} matches no linear layer of {kind}; "
            f"its layers end in: {', '.join(kinds[:24])}."
        )


def _start(path: Path, linear: Mapping[str, nn.Linear], original: Sequence[tuple[str, str]]) -> Start:
    """Find each of an adapter's matrices its layer, whoever named it: names are compared with dots as underscores."""
    file = _file(path)
    known = {}
    for name in linear:
        theirs = name
        for ours, other in original:
            theirs = theirs.replace(ours, other)
        known |= {re.sub(r"\W", "_", theirs): name, re.sub(r"\W", "_", name): name}
    keys: dict[str, dict[str, str]] = {}
    shapes, alphas, common = _header(file)
    for key in (*shapes, *alphas):
        found = KEY.fullmatch(key)
        layer = known.get(re.sub(r"\W", "_", PREFIX.sub("", found[1], count=1))) if found else None
        if found is None or layer is None:
            raise BadCheckpoint(
                f"{str(file)!r} holds {pretrained.shortened(key)!r}, which is of no linear layer of this model; "
                "give a plain LoRA (no DoRA, biases or text encoder) of the same model."
            )
        side = {"A": "down", "B": "up", None: "alpha"}.get(found["side"], found["side"])
        if keys.setdefault(layer, {}).setdefault(side, key) != key:
            raise BadCheckpoint(f"{str(file)!r} holds the {side} of {layer} twice.")
    layers, ranks = {}, set()
    for layer in (name for name in linear if name in keys):
        own, module = keys[layer], linear[layer]
        down, up = (shapes.get(own.get(side, ""), ()) for side in ("down", "up"))
        if (
            len(down) != 2
            or len(up) != 2
            or (up[0], down[1], up[1]) != (module.out_features, module.in_features, down[0])
        ):
            raise BadCheckpoint(
                f"{str(file)!r} holds matrices of {list(down)} and {list(up)} for {layer}, which is "
                f"{module.in_features} by {module.out_features}; it is of another model."
            )
        ranks.add(down[0])
        layers[layer] = (own["down"], own["up"], alphas.get(own.get("alpha", ""), common or float(down[0])))
    if len(ranks) != 1:
        what = f"layers of different ranks ({min(ranks)} to {max(ranks)})" if ranks else "no adapter"
        raise BadCheckpoint(f"{str(file)!r} holds {what}; give a LoRA of one rank.")
    return Start(file, layers, ranks.pop())


def _file(path: Path) -> Path:
    if path.is_dir():
        found = [p for p in (path / name for name in FILES) if p.exists()] or sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise BadCheckpoint(f"model.lora.start: {str(path)!r} holds {len(found)} safetensors files; name one.")
        return found[0]
    if not path.exists() or path.suffix != ".safetensors":
        what = "is no *.safetensors file" if path.exists() else "is not there"
        raise BadCheckpoint(
            f"model.lora.start: {pretrained.shortened(path)!r} {what}; give an adapter's file or its folder."
        )
    return path


def _header(file: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, float], float | None]:
    """Shapes of an adapter's matrices, the alphas that are stored by layer, and the one that is for all."""
    pretrained.size_of(file)
    try:
        with safe_open(file, framework="pt") as content:
            names = tuple(content.keys())
            shapes = {n: tuple(content.get_slice(n).get_shape()) for n in names}
            odd = [n for n in names if content.get_slice(n).get_dtype() not in FLOATS]
            alphas = {n: float(content.get_tensor(n)) for n in names if n.endswith(".alpha") and not odd}
            notes = (content.metadata() or {}).get("lora_adapter_metadata")
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise BadCheckpoint(f"{str(file)!r} cannot be read as an adapter ({pretrained.shortened(error)}).") from error
    if odd:
        raise BadCheckpoint(
            f"{str(file)!r} holds {odd[0]!r} in a format for inference; give float32, bfloat16 or float16."
        )
    common = _common_alpha(file, notes)
    for name, alpha in (*alphas.items(), *((("alpha", common),) if common is not None else ())):
        if not 0 < alpha <= 1e6:  # as in a recipe, which may take its place
            raise BadCheckpoint(f"{str(file)!r} gives {name!r} as {alpha}, but a scale is above 0 and at most 1e6.")
    return {n: s for n, s in shapes.items() if n not in alphas}, alphas, common


def _common_alpha(file: Path, notes: str | None) -> float | None:
    """Alpha as diffusers keeps it in the file's header and peft in adapter_config.json."""
    beside = file.parent / "adapter_config.json"
    try:
        found: dict[str, Any] = dict(json.loads(notes)) if notes else {}
        found = {key.removeprefix("transformer."): value for key, value in found.items()}
        if not found and beside.exists() and file.name == "adapter_model.safetensors":
            found = pretrained.read_json(beside)
        alpha = None if found.get("lora_alpha") is None else float(found["lora_alpha"])
    except (ValueError, TypeError, RecursionError) as error:
        raise BadCheckpoint(f"{str(file)!r} has notes that are no adapter's; it is damaged.") from error
    odd = [key for key in ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern", "lora_bias") if found.get(key)]
    if odd:
        raise BadCheckpoint(f"{str(file)!r} was trained with {odd[0]}; give a plain LoRA of one rank and one alpha.")
    return alpha


def attach(network: nn.Module, wanted: Plan, seed: int = 0) -> None:
    """Freeze a diffusers network and add the adapter, called "default"; a fresh one does not change its output.

    Raises:
        BadCheckpoint: `start` holds numbers that are not finite.
    """
    from peft import LoraConfig as PeftConfig

    network.requires_grad_(False)
    peft = PeftConfig(
        r=wanted.rank,
        lora_alpha=wanted.alpha,  # type: ignore[arg-type] - peft only divides it by the rank
        target_modules=list(wanted.targets),
        init_lora_weights=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.add_adapter(peft)  # type: ignore[operator]
    if wanted.start:
        _fill(network, wanted, wanted.start)


@torch.no_grad()
def _fill(network: nn.Module, wanted: Plan, start: Start) -> None:
    """Copy the start's matrices; where it was scaled in another way, its ups are scaled to make up for it."""
    with pretrained.reading(start.file, "LoRA"), safe_open(start.file, framework="pt") as content:
        for layer, (down, up, alpha) in start.layers.items():
            own: Any = network.get_submodule(layer)
            for key, target, scale in ((down, own.lora_A, 1.0), (up, own.lora_B, alpha / wanted.alpha)):
                values = content.get_tensor(key).float()
                if not finite(values):
                    raise BadCheckpoint(f"{str(start.file)!r} holds numbers that are not finite in {key!r}.")
                target["default"].weight.copy_(values if scale == 1.0 else values * scale)
