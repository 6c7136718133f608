"""What can be told of a recipe before torch is imported: keys and parts that do not exist, paths that lead nowhere.

A glance refuses only what the checks behind it would refuse too; it is there because they take seconds to load. What it
knows of settings it reads from the files that declare them (`source`).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from reelign.config import Tree, unknown_key, validate
from reelign.errors import BadCheckpoint, BadConfig, BadData, UnknownPart, cut, shown
from reelign.names import Label, Root, RunName
from reelign.parts import Kind, is_outside, refuse_unknown
from reelign.source import Setting, page, settings

RECIPE = ("reelign.driver.recipe", "Recipe")
SPEC = ("reelign.bakeoff.spec", "Spec")
NAME = Setting("name", "text", None, "Which part it is.")
PLAYGROUND = "playground"


class _Run(BaseModel):
    name: RunName = "run"
    root: Root = "runs"


class _Stage(BaseModel):
    label: Label = ""


class _Named(BaseModel):
    """What of a recipe becomes names of files."""

    run: _Run = _Run()
    stages: tuple[_Stage, ...] = ()


def recipe(tree: Tree) -> None:
    """Refuse keys and parts of a recipe that do not exist, and names that no file can have.

    Raises:
        BadConfig: a key that means nothing at its place, or such a name.
        UnknownPart: a name that no part has, or one from outside where those are refused.
    """
    _group(tree, settings(*RECIPE), "")
    run, stages = tree.get("run"), tree.get("stages")
    labelled = [stage if isinstance(stage, Mapping) else {} for stage in stages] if isinstance(stages, list) else []
    validate(_Named, {"run": run if isinstance(run, Mapping) else {}, "stages": labelled})


def spec(tree: Tree) -> None:
    """The same for what a bake-off compares."""
    _group(tree, settings(*SPEC), "")


def paths(tree: Tree) -> None:
    """Refuse a model and data that are not where a recipe says.

    What a stage before writes, `{run}/...`, need not be there yet.

    Raises:
        BadCheckpoint: the model's weights are no pipeline folder.
        BadData: there is no file or folder at a dataset's path.
    """
    model = tree.get("model")
    if isinstance(model, Mapping) and model.get("name") == "wan":
        weights(model.get("weights", PLAYGROUND))
    stages = tree.get("stages")
    for index, stage in enumerate(stages if isinstance(stages, list) else ()):
        _data(stage, f"stages.{index}")
    _data(tree.get("evaluate"), "evaluate")


def weights(given: object) -> None:
    """Refuse a model that is no folder of a pipeline.

    Raises:
        BadCheckpoint: it has no model_index.json.
    """
    if not isinstance(given, str) or given == PLAYGROUND or _there(f"{given}/model_index.json"):
        return
    if not _there(given) or _there(f"{given}/."):  # of a single file the model says more
        raise BadCheckpoint(
            f"{shown(given)} is no pipeline folder (no model_index.json); give a local diffusers Wan folder or "
            f"{PLAYGROUND!r}."
        )


def run_folder(tree: Tree, resume: bool) -> Path | None:
    """Refuse to start a run where there is one, or to resume one where there is none.

    Returns:
        The folder; None where a recipe says none that could be one.

    Raises:
        BadConfig: see above.
    """
    run = tree.get("run")
    name = run.get("name") if isinstance(run, Mapping) else None
    root = run.get("root", "runs") if isinstance(run, Mapping) else None
    if not isinstance(name, str) or not name or not isinstance(root, str):
        return None
    folder = f"{root}/{name}"
    if resume and not _there(folder):  # a folder that has lost its config.json is told apart when it is read
        raise BadConfig(f"{shown(folder)} holds no run to resume; start it without --resume.")
    if not resume and _there(f"{folder}/config.json"):
        raise BadConfig(
            f"{shown(folder)} already holds a run; go on with --resume, or choose another name with --set run.name=...."
        )
    return Path(os.path.expanduser(folder))


def label(given: str, option: str) -> None:
    """Refuse a name that no file can have.

    Raises:
        BadConfig: it is one.
    """
    try:
        validate(_Stage, {"label": given})
    except BadConfig as error:
        raise BadConfig(f"{option}{str(error).removeprefix('label')}") from error


def a_run(folder: Path) -> None:
    """Refuse a path that is no folder where a run's is asked for.

    Raises:
        BadData: there is no such folder.
    """
    if not _there(f"{folder}/."):
        raise BadData(f"there is no folder {cut(str(folder), 160)}; give the path of a run, for example runs/NAME.")


def _there(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long, not allowed to look, no home folder
        return False


def _data(owner: object, where: str) -> None:
    dataset = owner.get("dataset") if isinstance(owner, Mapping) else None
    if not isinstance(dataset, Mapping) or not isinstance(dataset.get("name"), str) or is_outside(dataset["name"]):
        return
    for setting in page("dataset", dataset["name"]).settings:
        given = dataset.get(setting.name)
        if setting.type == "path" and isinstance(given, str) and "{run}" not in given and not _there(given):
            raise BadData(f"{where}.dataset.{setting.name}: there is no file or folder at {shown(given)}.")


def _group(given: object, allowed: Sequence[Setting], path: str) -> None:
    if not isinstance(given, Mapping):
        return  # pydantic says what is due instead
    known = {setting.name: setting for setting in allowed}
    for key, value in given.items():
        where = f"{path}.{key}".strip(".")
        if key not in known:
            raise unknown_key(where, key, tuple(known))
        setting = known[key]
        several = setting.many and isinstance(value, list)
        for place, each in ((f"{where}.{i}", v) for i, v in enumerate(value)) if several else ((where, value),):
            if setting.kind:
                _part(setting.kind, each, setting.inner, place)
            elif setting.inner:
                _group(each, setting.inner, place)


def _part(kind: Kind, given: object, beside: Sequence[Setting], path: str) -> None:
    name = given.get("name") if isinstance(given, Mapping) else given
    if not isinstance(name, str):
        return  # left out where a bake-off's common stage may say it
    try:
        refuse_unknown(kind, name)
    except UnknownPart as error:
        raise UnknownPart(f"{path}: {error}") from error
    if is_outside(name) or not isinstance(given, Mapping):
        return  # what an outside part takes is its own affair
    _group(given, (NAME, *page(kind, name).settings, *beside), path)
