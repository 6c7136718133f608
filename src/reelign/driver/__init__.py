"""The driver: runs a recipe's stages in a row, and decides what happens between updates - save, judge, gate, resume."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from reelign import finished, parts
from reelign.driver import started
from reelign.driver.check import Findings, check
from reelign.driver.interrupts import Interrupted, saving_on_interrupt
from reelign.driver.loop import Driver
from reelign.driver.recipe import Recipe, RunConfig, labels
from reelign.driver.run_folder import RunFolder
from reelign.driver.state import extended, read
from reelign.driver.watching import Company, Log, Watcher
from reelign.errors import BadConfig, CannotWrite, UserError
from reelign.files import write_text
from reelign.opened import Datasets
from reelign.protocols import VideoModel
from reelign.runtime.local import device

__all__ = ["Findings", "Interrupted", "Recipe", "RunConfig", "Watcher", "check", "check_again", "labels", "run"]


def run(
    recipe: Recipe,
    watcher: Watcher,
    resume: bool = False,
    accept_changes: bool = False,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Run a recipe to its end; returns the run folder.

    Args:
        recipe: what to run.
        watcher: is shown the progress; one that fails is shown no more.
        resume: go on with the run in the folder. One that is finished goes on if its last stage has more steps now.
        accept_changes: go on although data, base weights, rewards or metrics have changed since then; the ledger says
            so.
        about: kept in config.json beside the settings: `command`, which started the run, for its report; `given`, the
            digest of the recipe as it was given (`finished.given`), so that a finished run can be told by it.

    Raises:
        UserError: the input was wrong or the run had to stop; the last checkpoint is intact. If nothing had been done
            yet, the folder is free again, for the same name with other settings.
        Interrupted: Ctrl-C; the state has been saved, or is that of the last checkpoint if it came twice.
    """
    folder = RunFolder(recipe.path)
    company = Company(watcher, Log(folder.log))
    found, opened = Findings(), Datasets()
    if not resume:
        found = check(recipe, opened)
    elif not folder.path.is_dir():
        raise BadConfig(f"{str(folder.path)!r} holds no run to resume; start it without --resume.")
    with folder.locked(company.say), ExitStack() as signals:
        settled = {} if resume else started.settled(recipe.model)
        folder.prepare(recipe, resume, {**(about or {}), "notes": found.cautions, **settled})
        try:
            folder.sweep(recipe, labels(recipe))
            if resume:
                if _nothing_to_do(recipe, folder, company):
                    return folder.path
                found = check(_begun(recipe, folder), opened)
            _tell(found, folder, company)
            model: VideoModel = parts.build("model", folder.model(recipe), device(recipe.runtime))
            # Until all is said: a terminal that closes may tell twice.
            wish = signals.enter_context(saving_on_interrupt())
            Driver(recipe, folder, model, company, opened, accept_changes).run(wish)
        except CannotWrite as error:
            company.log.say(f"stopped: {error}")
            raise CannotWrite(error.path, error.reason, error.remedy, ", then go on with --resume") from error
        except UserError as error:
            company.log.say(f"stopped: {error}")
            if not resume:
                folder.clear_if_untouched(recipe)
            raise
        except Interrupted as error:
            company.log.say(f"stopped: {error}")
            raise
        except KeyboardInterrupt as error:
            company.log.say("stopped at once")
            raise Interrupted("stopped at once; go on from the last checkpoint with --resume.") from error
    return folder.path


def check_again(recipe: Recipe) -> Findings:
    """What `check` finds of a recipe that a run is to be taken up with; nothing is written.

    Raises:
        UserError: one sentence; also where its folder holds no such run.
    """
    folder = RunFolder(recipe.path)
    folder.prepare(recipe, resume=True)
    return check(_begun(recipe, folder))


def _begun(recipe: Recipe, folder: RunFolder) -> Recipe:
    """The recipe as it is once weights have been saved."""
    return recipe.model_copy(update={"model": folder.model(recipe)})


def _tell(found: Findings, folder: RunFolder, company: Company) -> None:
    """Say what was found of the data, and list what is left out of it in a file."""
    for sentence in found.told:
        company.say(sentence)
    if found.left_out:
        write_text(folder.path / "left_out.txt", "".join(f"{line}\n" for line in found.left_out))


def _nothing_to_do(recipe: Recipe, folder: RunFolder, company: Company) -> bool:
    """Whether a run is finished and its model exported: told from a few small files and what is in `final/`."""
    newest = folder.checkpoints.peek()
    if newest is None:
        return False
    state = read(newest.position, str(folder.path))
    if state.stage < len(recipe.stages) or extended(recipe, state) or not folder.final.is_of(newest.seal):
        return False
    told = [*folder.go_back(state), *folder.lost_pairs(recipe)]
    for sentence in (*told, finished.sentence(folder.path, state.ledger[-1], recipe.stages[-1].extent > 0)):
        company.say(sentence)
    folder.checkpoints.prune()
    return True
