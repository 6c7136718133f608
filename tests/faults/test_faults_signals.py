"""Signals at any file operation, and a stderr that nobody reads any more."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
from tests.faults.conftest import Chain, Share
from tests.faults.counts import Counts
from tests.faults.operations import Signals
from tests.faults.verdicts import sentence, wrong_with
from tests.faults.warm import Ended

Start = Callable[[str], Counts]
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def _under_way(undisturbed: Chain) -> range:
    """The operations from the first step of the first stage to the last of the last."""
    steps = [i for i, (_, path) in enumerate(undisturbed.operations) if path.endswith("/metrics.jsonl")]
    return range(steps[0], steps[-1] + 1)


@pytest.mark.faults(sample=4, parts=4)
def test_a_signal_while_stages_run_saves_first_and_the_run_goes_on_to_the_same_bits(
    undisturbed: Chain, counts: Start, share: Share
) -> None:
    found = counts("SIGTERM, SIGINT, SIGHUP or SIGUSR1, once")
    for at in share([*_under_way(undisturbed)][::2]):
        number = STOPS[at // 2 % len(STOPS)]
        folder = undisturbed.folder()
        ended = undisturbed.run(folder, Signals({at: number}))
        saved = ended.code == 130 and sentence(ended).startswith("saved ")
        wrong = wrong_with(ended, also=(130,)) or ("" if saved else f"exit {ended.code} without having saved")
        found.note(f"{number.name}, {undisturbed.name(at)}", wrong or undisturbed.goes_on(folder))
    found.settle()


@pytest.mark.faults(sample=3, parts=4)
def test_a_second_signal_stops_at_once_and_the_run_goes_on_to_the_same_bits(
    undisturbed: Chain, counts: Start, share: Share
) -> None:
    found = counts("SIGTERM, SIGINT, SIGHUP or SIGUSR1, twice")
    for at in share([*_under_way(undisturbed)][1::4]):
        number = STOPS[at // 4 % len(STOPS)]
        folder = undisturbed.folder()
        wrong = wrong_with(undisturbed.run(folder, Signals({at: number, at + 1: number})), also=(130,))
        found.note(f"{number.name}, {undisturbed.name(at)}", wrong or undisturbed.goes_on(folder))
    found.settle()


@pytest.mark.faults(sample=2, parts=2)
def test_a_signal_before_the_first_step_or_after_the_last_loses_nothing(
    undisturbed: Chain, counts: Start, share: Share
) -> None:
    found = counts("a signal before the first step, or after the last")
    inside = _under_way(undisturbed)
    for at in share([i for i in range(len(undisturbed.operations)) if i not in inside]):
        number = STOPS[at % len(STOPS)]
        folder = undisturbed.folder()
        # Nothing has been trained yet, or all of it is saved: dying of the signal is as good as a sentence.
        wrong = wrong_with(undisturbed.run(folder, Signals({at: number})), also=(130, -number))
        found.note(f"{number.name}, {undisturbed.name(at)}", wrong or undisturbed.goes_on(folder))
    found.settle()


@pytest.mark.parametrize(
    "job",
    [
        pytest.param({"stderr": "full"}, id="a full disk"),
        pytest.param({"stderr": "closed"}, id="no descriptor"),
        pytest.param({"stderr": "pipe", "hang_up": 1}, id="a pipe that is closed"),
        pytest.param({"stderr": "terminal", "hang_up": 1}, id="a terminal that is closed"),
        pytest.param({"stderr": "terminal", "hang_up": 400}, id="a terminal that is closed later"),
    ],
)
def test_a_run_whose_progress_cannot_be_shown_ends_well(undisturbed: Chain, counts: Start, job: dict[str, Any]) -> None:
    found = counts("stderr on a full disk, closed, or without a reader")
    folder = undisturbed.folder()
    ended: Ended = undisturbed.run(folder, **job)
    found.note(
        str(job), f"exit {ended.code}: {ended.err[-300:]}" if ended.code else undisturbed.differs(folder) or "same"
    )
    found.settle()


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_that_was_ignored_from_the_start_stays_ignored(undisturbed: Chain, number: signal.Signals) -> None:
    """As `nohup` promises for SIGHUP, and a shell for the SIGINT of what it starts in the background."""
    folder = undisturbed.folder()
    at = _under_way(undisturbed)[30]
    ended = undisturbed.run(folder, Signals({at: number}), ignored=(number,))
    assert (ended.code, undisturbed.differs(folder)) == (0, "")
