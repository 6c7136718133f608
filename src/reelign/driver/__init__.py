"""The driver: runs a recipe's stages in a row, and decides what happens between updates - save, judge, gate, resume."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from reelign import config as configs
from reelign import finished, parts
from reelign.driver import started
from reelign.driver.check import Findings, check
from reelign.driver.interrupts import Interrupted, saving_on_interrupt
from reelign.driver.loop import Driver
from reelign.driver.pace import AsAsked, Look, Pace
from reelign.driver.recipe import HeldOut, Recipe, RunConfig, labels
from reelign.driver.run_folder import RunFolder
from reelign.driver.state import extended, read
from reelign.driver.watching import Company, Log, Standing
from reelign.errors import BadConfig, CannotWrite, UserError
from reelign.events import About, Event, Sink
from reelign.files import write_text
from reelign.opened import Datasets
from reelign.runtime import equip

__all__ = [
    "Event",
    "Findings",
    "HeldOut",
    "Interrupted",
    "Look",
    "Pace",
    "Recipe",
    "RunConfig",
    "Sink",
    "check",
    "check_again",
    "labels",
    "run",
    "saving_on_interrupt",
]

NEVER: AbstractContextManager[Sequence[int]] = nullcontext(())
"""No wish to stop."""


def run(
    recipe: Recipe,
    sinks: Sequence[Sink] = (),
    resume: bool = False,
    accept_changes: bool = False,
    about: Mapping[str, object] | None = None,
    wish: AbstractContextManager[Sequence[int]] = NEVER,
    pace: Pace | None = None,
) -> Path:
    """Run a recipe to its end; returns the run folder.

    Args:
        recipe: what to run.
        sinks: are told what happens, beside those of the recipe; one that fails is told no more. All are closed.
        resume: go on with the run in the folder. One that is finished goes on if its last stage has more steps now.
        accept_changes: go on although data, base weights, rewards or metrics have changed since then; the ledger says
            so.
        about: kept in config.json beside the settings: `command`, which started the run, for its report; `given`, the
            digest of the recipe as it was given (`finished.given`), so that a finished run can be told by it.
        wish: entered while there is something to save; once what it gives holds anything, the run saves and stops.
            `saving_on_interrupt()` fills it by signals. Without one nothing here touches signals, and Ctrl-C ends the
            run at once.
        pace: when it is judged on its way, and when it ends; by default as the recipe says.

    Raises:
        UserError: the input was wrong or the run had to stop; the last checkpoint is intact. If nothing had been done
            yet, the folder is free again, for the same name with other settings.
        Interrupted: Ctrl-C; the state has been saved, or is that of the last checkpoint if it came twice.
    """
    folder = RunFolder(recipe.path)
    company = Company(Log(folder.log), sinks)
    with ExitStack() as until_closed:
        until_closed.callback(company.close)
        findings, opened = Findings(), Datasets()
        if not resume:
            findings = check(recipe, opened)
        elif not folder.path.is_dir():
            raise BadConfig(f"{str(folder.path)!r} holds no run to resume; start it without --resume.")
        with folder.locked(company.say), ExitStack() as heard:
            settled = {} if resume else started.settled(recipe.model)
            folder.prepare(recipe, resume, {**(about or {}), "notes": findings.cautions, **settled})
            with _ending(company, (lambda: None) if resume else partial(folder.clear_if_untouched, recipe)):
                folder.sweep(recipe)
                if resume:
                    if _nothing_to_do(recipe, folder, company):
                        return folder.path
                    findings = check(_begun(recipe, folder), opened)
                company.join(Standing(folder.status), *_sinks(recipe, folder))
                _tell(findings, folder, company)
                model = equip.build(folder.model(recipe), recipe.runtime, recipe.run.root)
                driver = Driver(recipe, folder, model, company, opened, pace or AsAsked(recipe), accept_changes)
                # Until all is said: a terminal that closes may tell twice.
                driver.run(heard.enter_context(wish))
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


def _sinks(recipe: Recipe, folder: RunFolder) -> list[Sink]:
    """Those that the recipe names."""
    about = About(folder.path, recipe.run.name, folder.id, configs.dump(recipe))
    return [parts.build("sink", config, about) for config in recipe.sinks]


@contextmanager
def _ending(company: Company, give_back: Callable[[], object]) -> Iterator[None]:
    """Tell how a run ended, and the log why it was not done; one that was refused gives its name back."""

    def end(phase: str, why: str = "") -> None:
        if why:
            company.log.say(f"stopped: {why}")
        company.send("phase", data={"phase": phase, "text": why})

    try:
        yield
        end("done")
    except CannotWrite as error:
        end("failed", str(error))
        raise CannotWrite(error.path, error.reason, error.remedy, ", then go on with --resume") from error
    except UserError as error:
        end("failed", str(error))
        give_back()
        raise
    except Interrupted as error:
        end("stopped", str(error))
        raise
    except KeyboardInterrupt as error:
        end("stopped", "at once")
        raise Interrupted("stopped at once; go on from the last checkpoint with --resume.") from error
    except Exception as error:
        end("failed", f"{type(error).__name__}: {error}")
        raise


def _tell(findings: Findings, folder: RunFolder, company: Company) -> None:
    """Say what was found of the data, and list what is left out of it in a file."""
    for sentence in findings.told:
        company.say(sentence)
    if findings.left_out:
        write_text(folder.path / "left_out.txt", "".join(f"{line}\n" for line in findings.left_out))


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
