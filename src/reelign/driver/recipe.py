"""What a recipe says."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from reelign import config as configs
from reelign import parts
from reelign.parts import AnyModel, Settings
from reelign.runtime.local import RuntimeConfig
from reelign.stages import offline, online
from reelign.stages._context import AnyStage
from reelign.stages.evaluate import Config as EvaluateConfig


class RunConfig(Settings):
    """The run as a whole."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    """Folder of the run, below `root`."""
    seed: int = 0
    """Of every draw of the run."""
    root: str = "runs"
    """Folder of all runs."""
    save_every: int = Field(default=25, ge=1)
    """Steps between two checkpoints."""


class Recipe(Settings):
    """A whole run: a model, the stages it goes through, and how it is judged between them."""

    run: RunConfig
    model: AnyModel
    """What is trained."""
    stages: tuple[AnyStage, ...] = Field(min_length=1)
    """One after the other, each from the weights that the one before left."""
    evaluate: EvaluateConfig | None = None
    """Held-out evaluation before the first stage and after every stage that trains; gates need it."""
    runtime: RuntimeConfig = RuntimeConfig()


def labels(recipe: Recipe) -> list[str]:
    """The stages' names, made unique."""
    names: list[str] = []
    for stage in recipe.stages:
        base = stage.label or (stage.method.name if isinstance(stage, offline.Config | online.Config) else stage.name)
        name, n = base, 2
        while name in (*names, "base"):
            name, n = f"{base}-{n}", n + 1
        names.append(name)
    return names


def in_run(stage: Any, folder: Path) -> Any:
    """The stage's config with "{run}" in its dataset's values replaced by the run folder."""
    dataset = getattr(stage, "dataset", None)
    if dataset is None:
        return stage
    text = json.dumps(configs.dump(dataset))
    if "{run}" not in text:
        return stage
    tree = json.loads(text.replace("{run}", json.dumps(str(folder))[1:-1]))
    return stage.model_copy(update={"dataset": parts.configure("dataset", tree)})
