"""`reelign evaluate MODEL --recipe RECIPE`: measure a model as a recipe's evaluation does."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from reelign.cli import _process
from reelign.cli._console import INSIDE_ONLY, emit
from reelign.errors import BadConfig, shown
from reelign.face.table import table


def command(
    models: list[str] = typer.Argument(
        ..., help='A Wan pipeline folder (such as a run\'s final/), or "playground"; several with --best.'
    ),
    recipe: Path = typer.Option(..., "--recipe", help="The recipe whose `evaluate` says what is measured."),
    overrides: list[str] = typer.Option([], "--set", help="key=value on the recipe; repeatable."),
    out: Path = typer.Option(Path("evaluation"), "--out", "-o", help="Folder for evaluations/ and samples/."),
    name: str = typer.Option(
        "", "--name", help="What the results are called there; default: the run of a final/, else the model's folder."
    ),
    best: list[int] = typer.Option(
        [], "--best", help="Search steps and guidance at so many forwards a clip in place of judging; repeatable."
    ),
    by: str = typer.Option(
        "", "--by", help="The measure that --best goes by; default: the recipe's first gate target."
    ),
    prompts: Path | None = typer.Option(None, "--prompts", help="Prompts for --best; default: the recipe's."),
    guidance: list[float] = typer.Option([], "--guidance", help="What --best tries; default: 1, 1.5, 2, 3, 4, 6."),
    as_json: bool = typer.Option(False, "--json", help="Results as JSON."),
    no_outside_parts: bool = INSIDE_ONLY,
) -> None:
    """Measure a model on held-out prompts."""
    from reelign import config as configs
    from reelign import glance, names

    tree = configs.override(configs.read(recipe), overrides)
    glance.recipe(tree)
    for each in models:
        glance.weights(each)
    if best:
        asked = {"forwards": best, "by": by, "prompts": prompts, "guidances": guidance}
        _search(tree, as_json, models, out, asked)
        return
    if len(models) > 1 or by or prompts or guidance:
        raise BadConfig("several models, --by, --prompts and --guidance go with --best; give it, or leave them out.")
    (model,) = models
    name = name or names.of_model(model)
    glance.label(name, "--name")
    _free(out, [name])  # before torch, which takes seconds to load

    from reelign import driver

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


def _search(tree: Mapping[str, Any], as_json: bool, models: Sequence[str], out: Path, asked: Mapping[str, Any]) -> None:
    """Find the best of each model, and say it."""
    from reelign import config as configs
    from reelign import driver
    from reelign.face import searching

    recipe = configs.validate(driver.Recipe, dict(tree))
    _process.bind_threads(recipe.runtime)
    found = searching.best(models, recipe, out=out, **{name: value for name, value in asked.items() if value})
    emit(found.dump(), as_json, f"{searching.told(found)}\n\nwritten {out / searching.contest.FILE}")


def _table(sampler: str, measures: Mapping[str, Any], several: bool) -> str:
    """What was found under a sampler, which is named where there are several."""
    rows = [[measure, m["mean"], m["low"], m["high"], m["n"]] for measure, m in measures.items()]
    columns = table(("measure", "mean", "low", "high", "clips"), rows)
    return f"{sampler}\n{columns}" if several else columns


def _free(out: Path, keys: Sequence[str]) -> list[Path]:
    """The files for the results, where there are none of those names yet.

    Raises:
        BadConfig: there is one.
    """
    paths = [out / "evaluations" / f"{key}.json" for key in keys]
    for path in paths:
        if os.path.lexists(path):
            raise BadConfig(
                f"{shown(str(path))} is there from an earlier evaluation and is not replaced; give this one another "
                "--name or --out."
            )
    return paths
