"""What a recipe says, and what can be known to be wrong with it before any compute."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from reelign import config as configs
from reelign import parts
from reelign.batches import Clips, Pairs
from reelign.errors import BadConfig
from reelign.parts import AnyModel
from reelign.protocols import Dataset
from reelign.runtime.local import Panel, RuntimeConfig
from reelign.stages import collect, evaluate, offline, online
from reelign.stages._context import AnyStage, StageConfig
from reelign.stages.evaluate import Config as EvaluateConfig


class RunConfig(BaseModel):
    """The run as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    """Folder of the run, below `root`."""
    seed: int = 0
    root: str = "runs"
    save_every: int = Field(default=25, ge=1)
    """Steps between two checkpoints."""


class Recipe(BaseModel):
    """A whole run: a model, the stages it goes through, and how it is judged between them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: RunConfig
    model: AnyModel
    stages: tuple[AnyStage, ...] = Field(min_length=1)
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


def check(recipe: Recipe) -> None:
    """Refuse what can be known to fail before any compute.

    That is: no model there, missing or unreadable data, a dataset that cannot make what the stage needs or enough of
    it, rewards and metrics that cannot be built, gates without evaluation or with measures that nothing measures.

    Raises:
        UserError: one sentence.
    """
    parts.find("model", recipe.model.name).check(recipe.model)
    measured = _measures(recipe)
    for index, stage in enumerate(recipe.stages):
        _check_data(index, stage)
        Panel.build(getattr(stage, "rewards", ()))
        if stage.gate and measured is None:
            raise BadConfig(
                f"stages.{index}.gate: gates compare evaluations, but the recipe has no `evaluate`; "
                "add it or drop the gate."
            )
        for name in (*stage.gate.targets, *stage.gate.guards) if stage.gate else ():
            if name not in (measured or ()):
                raise BadConfig(
                    f"stages.{index}.gate: no metric of `evaluate` measures {name!r}; "
                    f"measured: {', '.join(sorted(measured or ()))}."
                )


def _measures(recipe: Recipe) -> set[str] | None:
    """Names of all that the evaluation measures, after reading its prompts."""
    if recipe.evaluate is None:
        return None
    evaluate.prompts_of(recipe.evaluate)
    return {name for m in recipe.evaluate.metrics for name in parts.build("metric", m).higher_is_better}


def _check_data(index: int, stage: StageConfig) -> None:
    """Open the stage's dataset, unless a stage before it writes it, and see that it can make what the stage draws."""
    config = getattr(stage, "dataset", None)
    if config is None or "{run}" in json.dumps(configs.dump(config)):
        return
    dataset: Dataset = parts.build("dataset", config)
    needs = "prompts"
    if isinstance(stage, offline.Config):
        needs = {Clips: "clips", Pairs: "pairs"}[parts.build("method", stage.method).consumes]
    if needs not in dataset.gives:
        raise BadConfig(
            f"stages.{index}.dataset: {config.name} gives {' and '.join(sorted(dataset.gives))}, "
            f"but the stage needs {needs}."
        )
    if isinstance(stage, online.Config):
        dataset.prompts(stage.prompts, stage.group, 0)
        parts.build("method", stage.method).check(stage.demand(dataset.all_prompts().texts))
    elif isinstance(stage, collect.Config):
        dataset.prompts(min(stage.prompts, stage.per_step), stage.members, 0)


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
