"""What a recipe asks of its device's memory, stage by stage, in sentences; computed, not measured."""

from typing import Any

import torch

from reelign import parts
from reelign.driver.recipe import Recipe, labels
from reelign.outline import Outline
from reelign.runtime import footprint


def told(recipe: Recipe, device: torch.device, *, working: bool) -> list[str]:
    """A sentence for the model and one for each stage that trains; none where the model cannot be outlined.

    Args:
        recipe: what is to run.
        device: it need not be there.
        working: whether to follow a forward and backward pass of each stage, too; that takes seconds.

    Raises:
        BadCheckpoint, BadConfig: see the model's `build`.
    """
    family = parts.find("model", recipe.model.name)
    if not hasattr(family, "outline"):
        return []
    outline: Outline = family.outline(recipe.model, device)
    sentences = [_sentence(f"the model on {device.type}", footprint.model(outline))]
    stages: tuple[Any, ...] = recipe.stages
    for label, stage in zip(labels(recipe), stages, strict=True):
        if stage.burden is not None:
            held = footprint.kept(outline, stage.learner, stage.burden)
            held |= footprint.working(outline, stage.burden) if working else {}
            beside = "beside it" if working else "beside it, without its forward passes"
            sentences.append(_sentence(f"{label} {beside}", held))
    return sentences


def _sentence(of: str, sizes: dict[str, int]) -> str:
    each = ", ".join(f"{name} {_shown(held)}" for name, held in sizes.items())
    return f"memory of {of}: {_shown(sum(sizes.values()))} ({each})."


def _shown(held: int) -> str:
    """Bytes for people: "2.6 GiB"."""
    return f"{held / 2**30:.1f} GiB" if held >= 2**29 else f"{held / 2**20:.1f} MiB"
