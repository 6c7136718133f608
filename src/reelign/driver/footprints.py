"""What a recipe asks of its device's memory, stage by stage, in sentences; computed, not measured."""

from typing import Any

import torch

from reelign import parts
from reelign.batches import Pairs, Prompts
from reelign.driver.recipe import Recipe, labels
from reelign.outline import Outline
from reelign.runtime import footprint
from reelign.runtime.footprint import Load
from reelign.runtime.local import ROLES
from reelign.stages import offline, online


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
    found = [_sentence(f"the model on {device.type}", footprint.model(outline))]
    for label, stage in zip(labels(recipe), recipe.stages, strict=True):
        if isinstance(stage, offline.Config | online.Config):
            load = load_online(stage) if isinstance(stage, online.Config) else load_offline(stage)
            held = footprint.kept(outline, stage.learner, load)
            held |= footprint.working(outline, load) if working else {}
            found.append(_sentence(f"{label} beside it", held))
    return found


def load_offline(stage: offline.Config) -> Load:
    """What a stage on clips or pairs asks of the device."""
    method: Any = parts.build("method", stage.method)
    n, micro_batch, roles = stage.batch, stage.learner.micro_batch, len(method.needs & ROLES)
    if method.consumes is Pairs:  # both of a pair share a noise and a forward pass
        return Load(n, 3 * n, 2 * min(n, max(1, micro_batch // 2)), roles)
    return Load(n, 2 * n, min(n, micro_batch), roles)


def load_online(stage: online.Config) -> Load:
    """What a stage on its own samples asks of the device."""
    method: Any = parts.build("method", stage.method)
    n, micro_batch = stage.prompts * stage.group, stage.learner.micro_batch
    prompts = Prompts(("",) * stage.prompts, tuple(range(stage.prompts)), stage.group)
    exploration = method.explore(stage.sampler.steps, prompts, 0, 0)
    recorded = exploration.width if exploration.record is None else len(exploration.record)
    # Of each recorded step: where it begins, where it ends, and its mean.
    latents, branches = n * (1 + 3 * recorded), 1 if stage.sampler.guidance == 1 else 2
    graphs = recorded * -(-n // micro_batch) if stage.retain else 1
    return Load(n, latents, branches * min(n, micro_batch), len(method.needs & ROLES), graphs)


def _sentence(of: str, sizes: dict[str, int]) -> str:
    each = ", ".join(f"{name} {shown(held)}" for name, held in sizes.items())
    return f"memory of {of}: {shown(sum(sizes.values()))} ({each})."


def shown(held: int) -> str:
    """Bytes for people: "2.6 GiB"."""
    return f"{held / 2**30:.1f} GiB" if held >= 2**29 else f"{held / 2**20:.1f} MiB"
