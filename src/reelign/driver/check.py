"""What can be known to be wrong with a recipe before any compute."""

import json

from reelign import config as configs
from reelign import parts
from reelign.batches import Clips, Pairs
from reelign.driver.recipe import Recipe
from reelign.errors import BadConfig
from reelign.protocols import Dataset
from reelign.runtime.local import Panel
from reelign.stages import collect, evaluate, offline, online
from reelign.stages._context import StageConfig


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
