"""The driver: runs a recipe's stages in a row, and decides what happens between updates - save, judge, gate, resume."""

from pathlib import Path

from reelign import parts
from reelign.driver.check import check
from reelign.driver.loop import Driver, Interrupted, Watcher
from reelign.driver.recipe import Recipe, RunConfig, labels
from reelign.driver.run_folder import RunFolder
from reelign.errors import UserError
from reelign.protocols import VideoModel
from reelign.runtime.local import device

__all__ = ["Interrupted", "Recipe", "RunConfig", "Watcher", "check", "labels", "run"]


def run(recipe: Recipe, watcher: Watcher, resume: bool = False) -> Path:
    """Run a recipe to its end; returns the run folder.

    Raises:
        UserError: the input was wrong or the run had to stop; the last checkpoint is intact. If nothing had been done
            yet, the folder is free again, for the same name with other settings.
        Interrupted: Ctrl-C; the state has been saved.
    """
    check(recipe)
    folder = RunFolder(Path(recipe.run.root) / recipe.run.name)
    folder.prepare(recipe, resume)
    with folder.locked():
        folder.sweep()
        try:
            model: VideoModel = parts.build("model", recipe.model, device(recipe.runtime))
            Driver(recipe, folder, model, watcher).run()
        except UserError:
            if not resume:
                folder.clear_if_untouched()
            raise
    return folder.path
