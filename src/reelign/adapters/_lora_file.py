"""A LoRA's file, whoever wrote it: compared with a network's layers by its header alone, then copied into them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from reelign import pretrained
from reelign.errors import BadCheckpoint, cut
from reelign.pretrained.part import FLOATS
from reelign.soundness import finite

NAME = "pytorch_lora_weights.safetensors"
NAMES = (NAME, "adapter_model.safetensors")
"""What diffusers and peft call an adapter's file."""
NOTES = "lora_adapter_metadata"
"""Where diffusers keeps an adapter's settings in a file's header."""
PREFIX = re.compile(r"(base_model\.model\.|transformer\.|diffusion_model\.|lora_unet_|lora_transformer_)*")
KEY = re.compile(r"(.+?)\.(?:lora[._](?P<side>A|B|down|up)(?:\.default)?\.weight|alpha)")


@dataclass(frozen=True)
class LoraFile:
    """An adapter's file, compared with a network."""

    file: Path
    layers: Mapping[str, tuple[str, str, float]]
    """By the network's name of a layer: the keys of the down and the up matrix, and alpha."""
    rank: int


def read(given: str, linear: Mapping[str, nn.Linear], original: Sequence[tuple[str, str]]) -> LoraFile:
    """Find each of an adapter's matrices its layer, whoever named it: names are compared with dots as underscores.

    Args:
        given: the file, or its folder.
        linear: the network's linear layers by name; they may lie on the meta device.
        original: parts of layers' names there, and what the model's own code calls them; for adapters trained with it.

    Raises:
        BadCheckpoint: it is no adapter of this network.
    """
    file = _file(pretrained.locate(given))
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
                f"{str(file)!r} holds {cut(key)!r}, which is of no linear layer of this model; "
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
    return LoraFile(file, layers, ranks.pop())


def _file(path: Path) -> Path:
    if path.is_dir():
        found = [p for p in (path / name for name in NAMES) if p.exists()] or sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise BadCheckpoint(f"model.adapter.start: {str(path)!r} holds {len(found)} safetensors files; name one.")
        return found[0]
    if not path.exists() or path.suffix != ".safetensors":
        what = "is no *.safetensors file" if path.exists() else "is not there"
        raise BadCheckpoint(f"model.adapter.start: {cut(path)!r} {what}; give an adapter's file or its folder.")
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
            notes = (content.metadata() or {}).get(NOTES)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise BadCheckpoint(f"{str(file)!r} cannot be read as an adapter ({cut(error)}).") from error
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


@torch.no_grad()
def fill(network: nn.Module, start: LoraFile, alpha: float) -> None:
    """Copy a file's matrices into a network's adapter; ups trained with another `alpha` make up for it.

    Raises:
        BadCheckpoint: it holds numbers that are not finite.
    """
    with pretrained.reading(start.file, "LoRA"), safe_open(start.file, framework="pt") as content:
        for layer, (down, up, own_alpha) in start.layers.items():
            own: Any = network.get_submodule(layer)
            for key, target, factor in ((down, own.lora_A, 1.0), (up, own.lora_B, own_alpha / alpha)):
                values = content.get_tensor(key).float()
                if not finite(values):
                    raise BadCheckpoint(f"{str(start.file)!r} holds numbers that are not finite in {key!r}.")
                target["default"].weight.copy_(values if factor == 1.0 else values * factor)
