"""What a recipe says."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, field_validator, model_validator

from reelign import config as configs
from reelign import names, parts
from reelign.files import seal
from reelign.finished import decisive
from reelign.parts import AnyModel, AnySink, PartConfig, Settings
from reelign.runtime.local import RuntimeConfig
from reelign.settings import in_run
from reelign.stage import AnyStage
from reelign.stages.evaluate import Config as EvaluateConfig


class RunConfig(Settings):
    """The run as a whole."""

    name: names.RunName
    """Folder of the run, below `root`: letters, digits and . _ -."""
    seed: int = 0
    """Of every draw of the run."""
    root: names.Root = "runs"
    """Folder of all runs."""
    save_every: int = Field(default=25, ge=1)
    """Steps between two checkpoints."""


class HeldOut(EvaluateConfig):
    """How the weights of a run are judged."""

    every: int = Field(default=0, ge=0, le=10**9)
    """Steps between two evaluations of a stage under way, of the weights that it would leave then; 0 judges only those
    that it leaves."""
    best: str = ""
    """A measure by which each stage hands the best of the judged weights on instead of its last ones; needs `every`."""

    @model_validator(mode="after")
    def _best_of_several(self) -> "HeldOut":
        if self.best and not self.every:
            raise ValueError(f"best is {self.best!r}, but nothing is judged on the way; give every, such as 20, too")
        return self


class Recipe(Settings):
    """A whole run: a model, the stages it goes through, and how it is judged between them."""

    run: RunConfig
    model: AnyModel
    """What is trained."""
    stages: tuple[AnyStage, ...] = Field(min_length=1)
    """One after the other, each from the weights that the one before left."""
    evaluate: HeldOut | None = None
    """Held-out evaluation before the first stage and after every stage that trains; gates need it."""
    runtime: RuntimeConfig = RuntimeConfig()
    sinks: tuple[AnySink, ...] = ()
    """Who is told what happens, beside the terminal; they move no bits."""

    @field_validator("stages")
    @classmethod
    def _each_collects_into_its_own(cls, stages: tuple[Any, ...]) -> tuple[Any, ...]:
        folders = [(i, str(Path(file).parent)) for i, stage in enumerate(stages) for file in stage.writes]
        for (one, first), (other, second) in combinations(folders, 2):
            short, long = sorted((f"{names.same(first)}/", f"{names.same(second)}/"), key=len)
            if long.startswith(short):
                raise ValueError(
                    f"{one} and {other} collect into folders that lie in one another, {first!r} and {second!r}; give "
                    "each a `path` of its own"
                )
        return stages

    @model_validator(mode="after")
    def _one_file_an_evaluation(self) -> "Recipe":
        files = {names.same(key): label for label in labels(self) for key in _judged_as(self, label)}
        for label in ("base", *labels(self)):
            others = [key for key in _judged_as(self, label) if files.get(names.same(key), label) != label]
            if others:
                raise ValueError(
                    f"the evaluation of stage {files[names.same(others[0])]!r} would be written where that "
                    f"of {label!r} under another sampler lies; give one of the two another name"
                )
        return self

    @property
    def path(self) -> Path:
        """The run folder."""
        return Path(self.run.root) / self.run.name


def labels(recipe: Recipe) -> list[str]:
    """The stages' names, made unique also for file systems that ignore case."""
    return names.unique((stage.label or stage.title for stage in recipe.stages), ["base"])


def _judged_as(recipe: Recipe, label: str) -> tuple[str, ...]:
    """Names of the files that are written of a stage's weights, whoever judges them."""
    stages = zip(labels(recipe), recipe.stages, strict=True)
    own = [key for name, stage in stages if name == label for key in stage.files(label)]
    return tuple(own) or (recipe.evaluate.files(label) if recipe.evaluate else ())


def essential(tree: Any) -> Any:
    """What of a resolved recipe decides the bits of a run, without the number of its last stage's steps.

    Where the run lies, how often it is saved, and on what it runs are left out, and where data lies that says itself
    what it holds.
    """
    last = {key: value for key, value in tree["stages"][-1].items() if key != "steps"}
    return _without_places({**decisive(tree), "stages": [*tree["stages"][:-1], last]})


def _without_places(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_without_places(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    data = tree.get("dataset")
    if isinstance(data, dict) and not parts.is_outside(str(data.get("name"))) and not in_run(data.get("path")):
        tree = {**tree, "dataset": {key: value for key, value in data.items() if key != "path"}}
    return {key: _without_places(value) for key, value in tree.items()}


def digest(recipe: Recipe) -> str:
    """Twelve hex digits of what is essential."""
    return seal(essential(configs.dump(recipe)))[:12]


def datasets_in(settings: BaseModel, where: str) -> Iterator[tuple[str, PartConfig]]:
    """Every dataset that settings name, however deep, with its place in the recipe."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for key, inner in enumerate(value) if isinstance(value, tuple) else [("", value)]:
            place = f"{where}.{name}.{key}".rstrip(".")
            if name == "dataset" and isinstance(inner, PartConfig):
                yield place, inner
            elif isinstance(inner, BaseModel):
                yield from datasets_in(inner, place)


def all_datasets(recipe: Recipe, first: int = 0) -> Iterator[tuple[str, PartConfig]]:
    """The datasets of the stages from one on and of the evaluation, by their place."""
    for index, stage in enumerate(recipe.stages[first:], start=first):
        yield from datasets_in(stage, f"stages.{index}")
    if recipe.evaluate:
        yield from datasets_in(recipe.evaluate, "evaluate")


def shift(recipe: Recipe) -> float | None:
    """The time shift to sample the result with: that of the last stage which has one, else the evaluation's."""
    own = [stage.shift for stage in recipe.stages if stage.shift is not None]
    return own[-1] if own else recipe.evaluate and recipe.evaluate.samplers[0].shift
