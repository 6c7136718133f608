"""`reelign config RECIPE`."""

from pathlib import Path

import typer

from reelign.cli._console import INSIDE_ONLY, emit
from reelign.face.table import table


def command(
    recipe: Path = typer.Argument(..., help="A YAML recipe."),
    overrides: list[str] = typer.Option([], "--set", help="key=value; repeatable."),
    as_json: bool = typer.Option(False, "--json", help="The resolved tree as JSON."),
    no_outside_parts: bool = INSIDE_ONLY,
) -> None:
    """Print every setting of a recipe with where it came from."""
    import json

    from reelign import config as configs
    from reelign import glance

    given = configs.read(recipe)
    tree = configs.override(given, overrides)
    glance.recipe(tree)

    from reelign import driver

    checked = configs.validate(driver.Recipe, tree)
    rows = [(path, json.dumps(value), origin) for path, value, origin in configs.explain(checked, given, overrides)]
    emit(configs.dump(checked), as_json, table(("setting", "value", "from"), rows))
