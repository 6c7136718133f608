"""`reelign evaluate MODEL --recipe RECIPE`: measure a model as a recipe's evaluation does."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from reelign.cli._console import INSIDE_ONLY


def command(
    model: str = typer.Argument(..., help='A Wan pipeline folder (such as a run\'s final/), or "playground".'),
    recipe: Path = typer.Option(..., "--recipe", help="The recipe whose `evaluate` says what is measured."),
    overrides: list[str] = typer.Option([], "--set", help="key=value on the recipe; repeatable."),
    out: Path = typer.Option(Path("evaluation"), "--out", "-o", help="Folder for evaluations/ and samples/."),
    name: str = typer.Option(
        "", "--name", help="What the results are called there; default: the run of a final/, else the model's folder."
    ),
    as_json: bool = typer.Option(False, "--json", help="Results as JSON."),
    no_outside_parts: bool = INSIDE_ONLY,
) -> None:
    """Measure a model on held-out prompts."""
    from reelign import config as configs
    from reelign import glance
    from reelign.cli._console import emit

    tree = configs.override(configs.read(recipe), overrides)
    glance.recipe(tree)
    glance.weights(model)
    name = name or _name_of(model)
    glance.label(name, "--name")
    _free(out, [name])  # before torch, which takes seconds to load

    from reelign import driver
    from reelign.cli import _process
    from reelign.errors import BadConfig, shown

    checked = configs.validate(driver.Recipe, tree)
    if checked.evaluate is None:
        raise BadConfig(f"{shown(str(recipe))} has no `evaluate`; add one that names a dataset and metrics.")
    paths = _free(out, checked.evaluate.files(name))
    # Without the recipe's adapter: an exported model has it merged in, and one to start from would be added again.
    own = {key: value for key, value in configs.dump(checked.model).items() if key != "adapter"} | {"weights": model}
    built = _process.model(configs.part("model", own), checked.runtime, checked.run.root)
    out.mkdir(parents=True, exist_ok=True)
    found = _process.measures(built, checked.evaluate, name, out, model, "evaluate")
    tables = "\n\n".join(_table(sampler, measures, len(found) > 1) for sampler, measures in found.items())
    written = ", ".join(map(str, paths))
    emit(
        found,
        as_json,
        f"{tables}\n\nlow and high: 95 % bootstrap interval of the mean over prompts\nwritten {written}",
    )


def _table(sampler: str, measures: Mapping[str, Any], several: bool) -> str:
    """What was found under a sampler, which is named where there are several."""
    from reelign.face.table import table

    rows = [[measure, m["mean"], m["low"], m["high"], m["n"]] for measure, m in measures.items()]
    columns = table(("measure", "mean", "low", "high", "clips"), rows)
    return f"{sampler}\n{columns}" if several else columns


def _name_of(model: str) -> str:
    """The run whose `final/` a model is, else its folder's own name."""
    folder = Path(os.path.abspath(os.path.expanduser(model)))
    return folder.parent.name if folder.name == "final" else folder.name


def _free(out: Path, keys: Sequence[str]) -> list[Path]:
    """The files for the results, where there are none of those names yet.

    Raises:
        BadConfig: there is one.
    """
    from reelign.errors import BadConfig, shown

    paths = [out / "evaluations" / f"{key}.json" for key in keys]
    for path in paths:
        if os.path.lexists(path):
            raise BadConfig(
                f"{shown(str(path))} is there from an earlier evaluation and is not replaced; give this one another "
                "--name or --out."
            )
    return paths
