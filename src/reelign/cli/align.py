"""`reelign align RECIPE`: run a recipe."""

import shlex
import sys
from pathlib import Path
from typing import Any

import typer

from reelign.cli._console import ACCEPT_CHANGES, INSIDE_ONLY, OVERRIDES, complain, say


def command(
    recipe: Path = typer.Argument(..., help="A YAML recipe."),
    overrides: list[str] = OVERRIDES,
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

    tree = configs.override(configs.read(recipe), overrides)
    glance.recipe(tree)
    if not dry_run and already(tree, resume):
        return
    glance.paths(tree)

    from reelign import driver
    from reelign.driver import footprints
    from reelign.runtime.local import resolve

    if not dry_run:
        finish(tree, resume, accept_changes)
        return
    checked = configs.validate(driver.Recipe, tree)
    for sentence in (driver.check_again(checked) if resume else driver.check(checked)).told:
        say(sentence)
    for sentence in footprints.told(checked, resolve(checked.runtime), working=False):
        say(sentence)
    names = driver.labels(checked)
    stages = f"{len(names)} stage{'s' if len(names) > 1 else ''}"
    say(f"{recipe}: fine; {stages} ({', '.join(names)}), settings {configs.digest(checked)}.")


def already(tree: dict[str, Any], resume: bool) -> bool:
    """Whether a run that is taken up is finished as it is, which is then said; that is told before torch is loaded.

    Raises:
        BadConfig: there is no run to take up, or one where a new one would go.
    """
    from reelign import finished, glance
    from reelign.progress import Bar

    folder = glance.run_folder(tree, resume)
    sentence = finished.told(folder, tree) if resume and folder else ""
    if not folder or not sentence:
        return False
    Bar().say(sentence)
    say(f"model   {folder / 'final'}")
    say(f"report  {folder / finished.REPORT}")
    return True


def finish(tree: dict[str, Any], resume: bool, accept_changes: bool) -> None:
    """Run a recipe under a progress bar, then write its report and say where it is."""
    from reelign import config as configs
    from reelign import driver
    from reelign.cli._process import bind_threads
    from reelign.face import running
    from reelign.report import page

    bind_threads(configs.validate(driver.Recipe, tree).runtime)
    try:
        folder = running.run(tree, resume, accept_changes, _typed())
    except driver.Interrupted as stopped:
        complain(str(stopped))
        raise typer.Exit(130) from None
    # Said first: a report that cannot be written takes nothing from the model.
    say(f"model   {folder / 'final'}")
    say(f"report  {page.write(folder)}")


def _typed() -> str:
    """The command line as it can be typed again."""
    program = Path(sys.argv[0]).name
    return shlex.join([*(["python", "-m", "reelign.cli"] if program == "__main__.py" else [program]), *sys.argv[1:]])
