"""`reelign evaluate MODEL --recipe RECIPE`: measure a model as a recipe's evaluation does."""

from pathlib import Path

import typer

from reelign.cli._console import INSIDE_ONLY


def command(
    model: str = typer.Argument(..., help='A Wan pipeline folder (such as a run\'s final/), or "playground".'),
    recipe: Path = typer.Option(..., "--recipe", help="The recipe whose `evaluate` says what is measured."),
    overrides: list[str] = typer.Option([], "--set", help="key=value on the recipe; repeatable."),
    out: Path = typer.Option(Path("evaluation"), "--out", "-o", help="Folder for evaluations/ and samples/."),
    as_json: bool = typer.Option(False, "--json", help="Results as JSON."),
    no_outside_parts: bool = INSIDE_ONLY,
) -> None:
    """Measure a model on held-out prompts."""
    import json

    from reelign import config as configs
    from reelign import glance
    from reelign.cli._console import emit, table
    from reelign.errors import BadConfig, shown

    tree = configs.override(configs.read(recipe), overrides)
    glance.recipe(tree)
    glance.weights(model)

    from reelign import driver, parts
    from reelign.cli._process import device
    from reelign.cli._progress import Bar
    from reelign.stages import evaluate

    checked = configs.validate(driver.Recipe, tree)
    if checked.evaluate is None:
        raise BadConfig(f"{shown(str(recipe))} has no `evaluate`; add one that names a dataset and metrics.")
    # Without the recipe's adapter: an exported model has it merged in, and one to start from would be added again.
    own = {key: value for key, value in configs.dump(checked.model).items() if key != "lora"} | {"weights": model}
    built = parts.build("model", configs.part("model", own), device(checked.runtime))
    out.mkdir(parents=True, exist_ok=True)
    with Bar() as bar:
        bar.begin("evaluate", 100, 0)
        for share in evaluate.run(built, checked.evaluate, "model", out, model, frozenset()):
            bar.step(round(100 * share), {})
    measures = json.loads((out / "evaluations" / "model.json").read_text(encoding="utf-8"))["measures"]
    rows = [[name, m["mean"], m["low"], m["high"], m["n"]] for name, m in measures.items()]
    emit(measures, as_json, table(("measure", "mean", "95 % low", "95 % high", "clips"), rows))
