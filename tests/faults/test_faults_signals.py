"""Signals at any file operation, and a stderr that nobody reads any more."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
from tests.faults.conftest import Chain, Share
from tests.faults.counts import Counts
from tests.faults.operations import Signals
from tests.faults.verdicts import sentence, wrong_with

Start = Callable[[str], Counts]
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def _under_way(undisturbed: Chain) -> range:
    """The operations from the first step of the first stage to the last of the last."""
    steps = [i for i, (_, path) in enumerate(undisturbed.operations) if path.endswith("/metrics.jsonl")]
    return range(steps[0], steps[-1] + 1)


def _stopped(undisturbed: Chain, signals: Signals, also: tuple[int, ...], begins: str) -> str:
    """What becomes of a run that gets signals, and then goes on."""
    with undisturbed.folder() as folder:
        ended = undisturbed.run(folder, signals)
        if wrong := wrong_with(ended, also=also):
            return wrong
        if not sentence(ended).startswith(begins):
            return f"says {sentence(ended)!r}"
        return undisturbed.goes_on(folder)


@pytest.mark.faults(sample=1, parts=4)
def test_a_signal_while_stages_run_saves_first_and_the_run_goes_on_to_the_same_bits(
    undisturbed: Chain, counts: Start, share: Share
) -> None:
    found = counts("SIGTERM, SIGINT, SIGHUP or SIGUSR1, once")
    for at in share([*_under_way(undisturbed)][::2]):
        number = STOPS[at // 2 % len(STOPS)]
        found.note(
            f"{number.name}, {undisturbed.name(at)}",
            _stopped(undisturbed, Signals({at: number}), (130,), "saved "),
        )
    found.settle()


@pytest.mark.faults(sample=1, parts=4)
def test_a_second_signal_stops_at_once_and_the_run_goes_on_to_the_same_bits(
    undisturbed: Chain, counts: Start, share: Share
) -> None:
    found = counts("SIGTERM, SIGINT, SIGHUP or SIGUSR1, twice")
    for at in share([*_under_way(undisturbed)][1::4]):
        number = STOPS[at // 4 % len(STOPS)]
        signals = Signals({at: number, at + 1: number})
        found.note(f"{number.name}, {undisturbed.name(at)}", _stopped(undisturbed, signals, (130,), ""))
    found.settle()


@pytest.mark.faults(sample=1, parts=2)
def test_a_signal_before_the_first_step_or_after_the_last_loses_nothing(
    undisturbed: Chain, counts: Start, share: Share
) -> None:
    found = counts("a signal before the first step, or after the last")
    under_way = _under_way(undisturbed)
    for at in share([i for i in range(len(undisturbed.operations)) if i not in under_way]):
        number = STOPS[at % len(STOPS)]
        # Nothing has been trained yet, or all of it is saved: dying of the signal is as good as a sentence.
        also = (130, -number)
        found.note(f"{number.name}, {undisturbed.name(at)}", _stopped(undisturbed, Signals({at: number}), also, ""))
    found.settle()


UNREAD: dict[str, dict[str, Any]] = {
    "stderr on a full disk": {"stderr": "full"},
    "stderr closed": {"stderr": "closed"},
    "a pipe that is closed": {"hang_up": 1},
    "a terminal that is closed": {"stderr": "terminal", "hang_up": 1},
    "a terminal that is closed later": {"stderr": "terminal", "hang_up": 400},
}


@pytest.mark.faults(sample=1, parts=1)
def test_a_run_whose_progress_cannot_be_shown_ends_well(undisturbed: Chain, counts: Start, share: Share) -> None:
    found = counts("stderr on a full disk, closed, or without a reader")
    for name in share([*UNREAD]):
        with undisturbed.folder() as folder:
            ended = undisturbed.run(folder, **UNREAD[name])
            wrong = f"exit {ended.code}: {ended.err[-300:]}" if ended.code else undisturbed.differs(folder)
            found.note(name, wrong or "same")
    found.settle()


@pytest.mark.faults(sample=1, parts=1)
def test_of_signals_ignored_from_the_start_only_ctrl_c_is_heard(
    undisturbed: Chain, counts: Start, share: Share
) -> None:
    """`nohup` promises that SIGHUP is not; SIGINT is ignored in all that a script starts beside itself."""
    found = counts("a signal that whoever started the run has it ignore")
    at = _under_way(undisturbed)[30]
    for number, code in share([(signal.SIGHUP, 0), (signal.SIGINT, 130)]):
        with undisturbed.folder() as folder:
            ended = undisturbed.run(folder, Signals({at: number}), ignored=(number,))
            wrong = "" if ended.code == code else f"exit {ended.code}: {sentence(ended)}"
            found.note(
                number.name, wrong or (undisturbed.goes_on(folder) if code else undisturbed.differs(folder) or "same")
            )
    found.settle()
