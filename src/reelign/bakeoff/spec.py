"""What a bake-off compares, and what can be known to be wrong with it before any compute."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator, model_validator

from reelign import config as configs
from reelign import driver
from reelign.config import Tree
from reelign.driver import HeldOut, Recipe, RunConfig
from reelign.errors import BadConfig, BadData, cut, shown
from reelign.names import Root, RunName
from reelign.opened import Datasets
from reelign.parts import AnyModel, Settings
from reelign.runtime.local import RuntimeConfig
from reelign.stages import online
from reelign.stages.evaluate import Config as EvaluateConfig

STEPS = 1_000_000
"""Iterations that a stage is built with; its budget ends it long before."""
FEWEST_SEEDS = 3
"""Below so many seeds nobody can tell a method from its luck."""
COMMON = ("dataset", "rewards")
"""What entries may not change: they would learn something else."""


class Target(Settings):
    """A level of a held-out measure; the time to reach it is compared."""

    measure: str
    """One of those that `evaluate` measures."""
    value: float | None = None
    """The level itself."""
    match: str = ""
    """Or an entry's label: the level that this entry ends with."""

    @model_validator(mode="after")
    def _one_level(self) -> "Target":
        if (self.value is None) == (not self.match):
            raise ValueError(
                "give either `value`, a level, or `match`, the label of the entry whose final level counts"
            )
        return self


class Entry(Settings):
    """One competitor."""

    label: RunName = Field(max_length=60)
    """Its name in tables and folders."""
    stage: online.Config
    """Its whole online stage: in the file, only what differs from the common one."""


class Spec(Settings):
    """Training methods on the same model, prompts, rewards and seeds, each with the same compute."""

    name: RunName
    """Folder of the bake-off, below `root`."""
    root: Root = "runs"
    """Folder of all bake-offs."""
    exploratory: bool = False
    """Allows fewer than three seeds; then nothing is ranked."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Training seeds; 3 stands for 0, 1, 2."""
    budget: int = Field(ge=1)
    """Forward-units of each run (`runtime.meter`); evaluation is free."""
    checks: int = Field(default=5, ge=2)
    """Evaluations of each run at equal parts of the budget, start and end included."""
    model: AnyModel
    """Where all runs start from."""
    runtime: RuntimeConfig = RuntimeConfig()
    evaluate: EvaluateConfig
    """Held-out prompts and measures; every check of every run samples the same prompts from the same noise."""
    stage: dict[str, Any] = Field(default_factory=dict)
    """What the entries' online stages have in common."""
    entries: tuple[Entry, ...] = Field(min_length=1)
    """Who competes."""
    target: Target
    measures: tuple[str, ...] = ()
    """Held-out measures that are ranked beside the target's."""
    baseline: str = ""
    """Label of the entry that times are compared with; the default is the first one."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, seeds: object) -> object:
        return tuple(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds

    @field_validator("seeds")
    @classmethod
    def _enough_seeds(cls, seeds: tuple[int, ...], info: Any) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("seeds are different whole numbers from 0 on")
        if len(seeds) < FEWEST_SEEDS and not info.data.get("exploratory"):
            raise ValueError(
                f"a comparison needs at least {FEWEST_SEEDS} seeds; give more, or set `exploratory: true`, which ranks "
                "nothing"
            )
        return seeds

    @field_validator("stage")
    @classmethod
    def _no_chain(cls, stage: Tree) -> Tree:
        _refuse(stage, "")
        return stage

    @field_validator("entries", mode="before")
    @classmethod
    def _whole_stages(cls, entries: object, info: Any) -> object:
        """Lay each entry's own settings over the common ones, so that its stage is checked as a whole."""
        common = info.data.get("stage", {})
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            return entries
        return [_whole(entry, common) for entry in entries]

    @field_validator("entries")
    @classmethod
    def _different_labels(cls, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        labels = [entry.label for entry in entries]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"two entries are called {twice[0]!r}; labels name their runs and must differ")
        return entries

    @field_validator("target", "baseline")
    @classmethod
    def _names_an_entry(cls, given: Target | str, info: Any) -> Target | str:
        label = given.match if isinstance(given, Target) else given
        labels = [entry.label for entry in info.data.get("entries", ())]
        if label and labels and label not in labels:
            raise ValueError(f"there is no entry {shown(label)}; entries: {cut(', '.join(labels), 300)}")
        return given

    @field_validator("evaluate")
    @classmethod
    def _one_sampler(cls, given: EvaluateConfig) -> EvaluateConfig:
        if len(given.samplers) > 1:
            called = ", ".join(sampler.called for sampler in given.samplers)
            raise ValueError(
                f"a bake-off ranks under one sampler, but samplers names {cut(called, 200)}; leave one, and "
                "judge under another in a bake-off of its own"
            )
        return given

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the entries, as given."""
        return tuple(entry.label for entry in self.entries)

    @property
    def ranked(self) -> tuple[str, ...]:
        """Measures that are ranked, the target's first."""
        return tuple(dict.fromkeys((self.target.measure, *self.measures)))


def _whole(entry: object, common: Tree) -> object:
    own = entry.get("stage", {}) if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(own, Mapping):
        return entry
    whose = f" of entry {shown(entry.get('label'))}"
    _refuse(own, whose)
    for key in COMMON:
        if key in own:
            raise ValueError(f"the stage{whose} changes {key!r}, which all entries share; set it in the common `stage`")
    return {**entry, "stage": {**merged(common, dict(own)), "name": "online", "steps": STEPS}}


def _refuse(stage: Mapping[str, Any], whose: str) -> None:
    if stage.get("name", "online") != "online":
        raise ValueError(
            f"the stage{whose} is {shown(stage['name'])}, but a bake-off compares online stages; leave `name` out"
        )
    for key, why in (
        ("steps", "a run goes on until its budget is spent"),
        ("gate", "a bake-off has no gates"),
        ("label", "an entry's label names it"),
    ):
        if key in stage:
            raise ValueError(f"the stage{whose} has {key!r}, but {why}; leave it out")


def merged(common: Tree, own: Tree) -> Tree:
    """A tree of settings laid over another: mappings key by key, everything else replaced as a whole.

    A part may be given by its bare name. A part of another name brings its own settings only: those of the common one
    mean nothing to it.

    Example:
        >>> merged({"method": {"name": "grpo", "kl": 0.1}, "group": 8}, {"method": {"clip": 1e-3}})
        {'method': {'name': 'grpo', 'kl': 0.1, 'clip': 0.001}, 'group': 8}
        >>> merged({"method": {"name": "grpo", "kl": 0.1}}, {"method": "my_lab.ipo"})
        {'method': 'my_lab.ipo'}
    """
    result = dict(common)
    for key, value in own.items():
        before = result.get(key)
        if isinstance(before, str) and isinstance(value, Mapping):
            before = {"name": before}
        if isinstance(before, Mapping) and isinstance(value, str) and before.get("name") == value:
            value = {}
        if isinstance(before, Mapping) and isinstance(value, Mapping) and _same_part(before, value):
            result[key] = merged(dict(before), dict(value))
        else:
            result[key] = value
    return result


def _same_part(before: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return "name" not in value or value["name"] == before.get("name")


def recipe(spec: Spec, entry: Entry, seed: int) -> Recipe:
    """One run of a bake-off as a recipe of its own: the same seeds, so the same run, as `reelign align` would make."""
    return Recipe(
        run=RunConfig(name=f"{entry.label}-seed{seed}", seed=seed, root=f"{spec.root}/{spec.name}"),
        model=spec.model,
        stages=(entry.stage.model_copy(update={"label": entry.label}),),
        evaluate=HeldOut.model_validate(dict(spec.evaluate)),
        runtime=spec.runtime,
    )


def check(spec: Spec) -> None:
    """Refuse what can be known to fail before any compute: all that `driver.check` refuses, and unmeasured measures.

    Raises:
        UserError: one sentence.
    """
    opened = Datasets()
    for entry in spec.entries:
        try:
            driver.check(recipe(spec, entry, spec.seeds[0]), opened)
        except (BadConfig, BadData) as error:
            # The stage of an entry is the only one of its recipe.
            raise type(error)(f"entry {entry.label!r}: {str(error).replace('stages.0.', 'stage.')}") from error
    known = [name for metric in spec.evaluate.asks for name in metric.names]
    for where, name in (("target.measure", spec.target.measure), *(("measures", name) for name in spec.measures)):
        if name not in known:
            raise BadConfig(
                f"{where}: no metric of `evaluate` measures {shown(name)}; measured: {', '.join(sorted(known))}."
            )


def differences(trees: Mapping[str, Tree]) -> dict[str, dict[str, Any]]:
    """Settings in which trees differ: values by dotted path and tree; a tree without that setting is left out.

    Example:
        >>> differences({"a": {"lr": 1, "kl": {"to": 2}}, "b": {"lr": 1, "kl": {"to": 3}}})
        {'kl.to': {'a': 2, 'b': 3}}
    """
    flat = {label: dict(_leaves(tree, "")) for label, tree in trees.items()}
    paths = dict.fromkeys(path for leaves in flat.values() for path in leaves)
    table = {path: {label: leaves[path] for label, leaves in flat.items() if path in leaves} for path in paths}
    return {
        path: row for path, row in table.items() if len(row) < len(flat) or len({repr(v) for v in row.values()}) > 1
    }


def _leaves(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{path}.{key}".strip("."))]
    return [(path, value)]


def stage_tree(entry: Entry) -> Tree:
    """An entry's whole stage as plain values, without the number of steps, which its budget decides."""
    return {key: value for key, value in configs.dump(entry.stage).items() if key != "steps"}
