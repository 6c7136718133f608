"""What the backbones with weights share: loading a local folder safely, and the pixels that it was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from reelign import pretrained
from reelign.errors import BadCheckpoint, cut

POSITIONS = 2**16
"""Patches of an image or a clip that a network may know."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """How frames in [0, 1] become what a network was trained on."""

    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def prepare(self, frames: Float[Tensor, "n 3 H W"], height: int, width: int) -> Float[Tensor, "n 3 h w"]:
        """Frames resized (bicubic, antialiased, kept in [0, 1]) and normalised."""
        sized = F.interpolate(frames, (height, width), mode="bicubic", antialias=True, align_corners=False)
        return (sized.clamp(0, 1) - self.mean) / self.std


def load(weights: str, kinds: Mapping[str, type[PreTrainedModel]], device: torch.device) -> tuple[Any, Pixels]:
    """A frozen network of one of `kinds` (by model type) and its pixels, from a local folder of safetensors.

    Raises:
        BadCheckpoint: no such folder, one that lacks a file or weights, pickled weights only, a config that names code
            to run, or another architecture.
    """
    folder = pretrained.locate(weights)
    if not folder.is_dir():
        raise BadCheckpoint(
            f"{cut(weights)!r} is no folder; give a local folder with config.json and model.safetensors."
        )
    model_type = cut(pretrained.read_json(folder / "config.json").get("model_type"))
    if model_type not in kinds:
        raise BadCheckpoint(f"{weights!r} holds a model of type {model_type!r}; needed is {' or '.join(kinds)}.")
    # Not exact: published files also hold what these networks were pretrained with.
    part = pretrained.transformers(kinds[model_type], folder, exact=False)
    _refuse_endless(part)
    pixels = _pixels(folder / "preprocessor_config.json", device)
    network = pretrained.load(part, dtype=torch.float32)
    network.requires_grad_(False).eval().to(device)
    return network, pixels


def _refuse_endless(part: pretrained.Part) -> None:
    """Refuse a config whose layers or positions would take for ever to lay out; they must be in proportion to files."""
    config, count = part.config, len(part.weights.tensors)
    with pretrained.reading(part.folder, part.kind.__name__):
        patches = side(config.image_size) // side(config.patch_size)
        moments = getattr(config, "num_frames", 1) // getattr(config, "tubelet_size", 1)
    layers, positions = config.num_hidden_layers, patches**2 * moments
    if layers > count or positions > POSITIONS:
        raise BadCheckpoint(
            f"{str(part.folder)!r} holds {count} weights, but its config.json asks for {layers} layers and {positions} "
            "positions; the two are of different models."
        )


def _pixels(path: Path, device: torch.device) -> Pixels:
    found = pretrained.read_json(path)
    try:
        mean, std = (
            torch.tensor(found[key], dtype=torch.float32).reshape(3, 1, 1) for key in ("image_mean", "image_std")
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadCheckpoint(f"{str(path)!r} has no image_mean and image_std of three numbers each.") from error
    return Pixels(mean.to(device), std.to(device))


def side(value: Any) -> int:
    """A size that a config gives as one number, or as two equal ones.

    Raises:
        BadCheckpoint: the two differ.
    """
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise BadCheckpoint(f"the backbone's sizes {value} differ; it must see square images in square patches.")
    return sides.pop()
