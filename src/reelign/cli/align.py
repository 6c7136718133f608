"""`reelign align RECIPE`: run a recipe."""

import shlex
import sys
from pathlib import Path

import typer

from reelign.cli._console import ACCEPT_CHANGES, INSIDE_ONLY


def command(
    recipe: Path = typer.Argument(..., help="A YAML recipe."),
    overrides: list[str] = typer.Option([], "--set", help="key=value, as in stages.1.method.clip=2e-4; repeatable."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check everything and stop before any compute."),
    resume: bool = typer.Option(
        False, "--resume", help="Go on with a run that was interrupted, or that has more steps in its last stage now."
    ),
    accept_changes: bool = ACCEPT_CHANGES,
    no_outside_parts: bool = INSIDE_ONLY,
) -> None:
    """Take a model through its stages, with gates between them, and write a report."""
    from reelign import config as configs
    from reelign import glance
    from reelign.cli._console import say

    tree = configs.override(configs.read(recipe), overrides)
    glance.recipe(tree)
    glance.paths(tree)
    if not dry_run:
        glance.run_folder(tree, resume)

    from reelign import driver

    checked = configs.validate(driver.Recipe, tree)
    if dry_run:
        found = driver.check(checked)
        for sentence in (*found.counts, *found.cautions):
            say(sentence)
        say(
            f"{recipe}: fine; {len(checked.stages)} stages ({', '.join(driver.labels(checked))}), "
            f"settings {configs.digest(checked)}."
        )
        return
    finish(checked, resume, accept_changes)


def finish(recipe: object, resume: bool, accept_changes: bool = False) -> None:
    """Run a checked recipe under a progress bar, then write its report and say where it is."""
    from reelign import driver
    from reelign.cli._console import complain, say
    from reelign.cli._process import bind_threads
    from reelign.cli._progress import Bar
    from reelign.errors import BadConfig
    from reelign.report import page

    assert isinstance(recipe, driver.Recipe)
    if accept_changes and not resume:
        raise BadConfig("--accept-changes is about a run that is taken up again; give --resume too, or leave it out.")
    bind_threads(recipe.runtime)
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    try:
        with Bar() as bar:
            folder = driver.run(recipe, bar, resume, accept_changes, command)
    except driver.Interrupted as stopped:
        complain(str(stopped))
        raise typer.Exit(130) from None
    # Said first: a report that cannot be written takes nothing from the model.
    say(f"model   {folder / 'final'}")
    say(f"report  {page.write(folder)}")
