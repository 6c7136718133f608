"""`reelign plan RECIPE`."""

from pathlib import Path

import typer

from reelign.cli._console import INSIDE_ONLY, OVERRIDES, say
from reelign.errors import BadConfig, shown

NONE = "this family of models says nothing of its memory."


def command(
    recipe: Path = typer.Argument(..., help="A YAML recipe."),
    device: str = typer.Option("cuda", help="cpu or cuda, whether this machine has one or not."),
    overrides: list[str] = OVERRIDES,
    no_outside_parts: bool = INSIDE_ONLY,
) -> None:
    """Compute what a recipe's stages hold in their device's memory, from the model's JSON files and headers alone."""
    from reelign import config as configs
    from reelign import glance

    if device not in ("cpu", "cuda"):
        raise BadConfig(f"--device is {shown(device)}; give cpu or cuda.")
    tree = configs.override(configs.read(recipe), overrides)
    glance.recipe(tree)

    import torch

    from reelign import driver
    from reelign.driver import footprints

    checked = configs.validate(driver.Recipe, tree)
    for sentence in footprints.told(checked, torch.device(device), working=True) or [NONE]:
        say(sentence)
