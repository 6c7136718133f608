"""`reelign config RECIPE`."""

from pathlib import Path

import typer


def command(
    recipe: Path = typer.Argument(..., help="A YAML recipe."),
    overrides: list[str] = typer.Option([], "--set", help="key=value; repeatable."),
    as_json: bool = typer.Option(False, "--json", help="The resolved tree as JSON."),
) -> None:
    """Print every setting of a recipe with where it came from."""
    import json

    from reelign import config as configs
    from reelign import driver
    from reelign.cli._console import emit, table

    given = configs.read(recipe)
    checked = configs.validate(driver.Recipe, configs.override(given, overrides))
    rows = [(path, json.dumps(value), origin) for path, value, origin in configs.explain(checked, given, overrides)]
    emit(configs.dump(checked), as_json, table(("setting", "value", "from"), rows))
