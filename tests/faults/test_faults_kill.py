"""Kills and power losses before each file operation of a run."""

import signal
from collections.abc import Callable

import pytest
from tests.faults.conftest import Chain, Share
from tests.faults.counts import Counts
from tests.faults.operations import Kill, PowerLoss

Start = Callable[[str], Counts]


@pytest.mark.faults(sample=5, parts=8)
def test_a_run_killed_before_any_file_operation_goes_on_to_the_same_bits(
    undisturbed: Chain, counts: Start, share: Share
) -> None:
    found = counts("SIGKILL before a file operation")
    for at in share(range(len(undisturbed.operations))):
        with undisturbed.folder() as folder:
            assert undisturbed.run(folder, Kill(at)).code == -signal.SIGKILL
            found.note(undisturbed.name(at), undisturbed.goes_on(folder))
    found.settle()


@pytest.mark.faults(sample=2, parts=8)
def test_a_run_that_loses_what_was_not_synced_goes_on_to_the_same_bits(
    undisturbed: Chain, counts: Start, share: Share
) -> None:
    found = counts("power loss before a file operation")
    for at in share(range(len(undisturbed.operations))):
        with undisturbed.folder() as folder:
            assert undisturbed.run(folder, PowerLoss(at, folder)).code == -signal.SIGKILL
            found.note(undisturbed.name(at), undisturbed.goes_on(folder))
    found.settle()
