"""Taking a run up again: from which checkpoint, whether that gives what was promised, and what has to be said."""

from collections.abc import Sequence

from reelign.driver import world
from reelign.driver.held import Groups, Held
from reelign.driver.recipe import Recipe, all_datasets, digest, labels
from reelign.driver.run_folder import RunFolder
from reelign.driver.state import State, extended, read
from reelign.driver.watching import Company
from reelign.errors import BadCheckpoint
from reelign.opened import Datasets
from reelign.runtime.checkpoint import Checkpoint
from reelign.settings import in_run


def take_up(
    recipe: Recipe, folder: RunFolder, held: Held, opened: Datasets, company: Company, accept: bool
) -> tuple[State, Groups] | None:
    """Bring weights and files back to the newest checkpoint; gives where the run stands, and that checkpoint's tensors.

    None where nothing has been saved yet.

    Raises:
        UserError: no checkpoint can be read, files that verdicts hang on are damaged, or what the run hangs on has
            changed and `accept` was not asked for.
    """
    newest = folder.checkpoints.newest(held.fingerprint)
    if newest is None:
        return None
    checkpoint, damaged = newest
    state = _read(checkpoint, recipe, folder)
    if extended(recipe, state):
        checkpoint = _reopen(recipe, folder, held, state, company)
        state = _read(checkpoint, recipe, folder)
    names = labels(recipe)
    at_end = state.stage == len(names)
    where = "the end of the last stage" if at_end else f"step {state.next} of stage {names[state.stage]}"
    now = world.around(recipe, held.model, state.stage, opened)
    state, moved = agree(state, world.changes(state.world, now), where, accept, company), world.moves(state.world, now)
    told = [f"{sentence} Going on from {where}, which was saved before it." for sentence in damaged]
    if moved:
        told.append(f"going on with {', '.join(moved)}; from here on the bits may differ from an uninterrupted run's.")
    told += folder.go_back(state)
    held.bring_back_weights(checkpoint)
    folder.take_over(recipe)
    folder.checkpoints.prune()
    for sentence in told:
        company.say(sentence)
    rewards = {"rewards": state.world.rewards}
    return state.model_copy(update={"world": now.model_copy(update=rewards)}), checkpoint.tensors


def agree(state: State, changes: Sequence[str], where: str, accept: bool, company: Company) -> State:
    """Refuse to go on over changes, or take them over into the note that the ledger gets.

    Raises:
        BadCheckpoint: something has changed, and it is not accepted.
    """
    if not changes:
        return state
    told = "; ".join(changes)
    if not accept:
        raise BadCheckpoint(
            f"the run would not go on to the same result, as something has changed since {where}: {told}; bring it "
            "back, or go on all the same with --accept-changes."
        )
    note = f"from step {state.next} with changes: {told}"
    company.say(f"{where} goes on {note}.")
    return state.model_copy(update={"accepted": (*state.accepted, note)})


def see_collected(recipe: Recipe, folder: RunFolder, state: State) -> None:
    """Where stages will collect lie nobody else's files; what others will read of it is as it was collected.

    Raises:
        BadData: it is not so.
    """
    read = any(in_run(config) for _, config in all_datasets(recipe, state.stage))
    for index, made in folder.collected(recipe):
        if (index, 0) >= (state.stage, state.next):
            made.refuse_foreign()
        elif index == state.stage:
            made.verify(state.next)
        elif read:
            made.verify(made.steps)


def warn_of_lost_entry(folder: RunFolder, held: Held, state: State, company: Company) -> None:
    """A failed gate brings the weights back that entered the stage: say it now if they are damaged."""
    try:
        folder.checkpoints.load(state.entering, held.fingerprint)
    except BadCheckpoint as error:
        company.say(f"{error} Should the gate fail, the weights that entered the stage cannot be brought back.")


def _read(checkpoint: Checkpoint, recipe: Recipe, folder: RunFolder) -> State:
    state = read(checkpoint.position, str(folder.path))
    if state.recipe != digest(recipe) or state.stage > len(recipe.stages):
        raise BadCheckpoint(
            f"the checkpoints in {str(folder.path)!r} were made with other settings than config.json there says; "
            "restore that file from a copy, or start a new run."
        )
    return state


def _reopen(recipe: Recipe, folder: RunFolder, held: Held, state: State, company: Company) -> Checkpoint:
    """The last step of a finished run, to go on from with more of them."""
    label, row = labels(recipe)[-1], state.ledger[-1]
    try:
        checkpoint = folder.checkpoints.load(f"{label}-{row['steps']:05d}", held.fingerprint)
    except BadCheckpoint as error:
        raise BadCheckpoint(f"the last stage cannot be extended, as its last step is lost: {error}") from error
    folder.checkpoints.pass_over(f"{label}-end")
    more = recipe.stages[-1].extent
    company.say(f"{label} was finished after {row['steps']} steps, and goes on to {more} as asked now.")
    if row["gate"]["verdict"] == "failed":
        company.say(
            f"{label} had failed its gate after {row['steps']} steps; it goes on from its own weights, which the gate "
            "judges again at the end."
        )
    return checkpoint
