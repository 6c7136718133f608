"""Errors of the system at each file operation of a run: no space, a broken disk, no permission."""

import errno
import itertools
from collections.abc import Callable
from functools import partial

import pytest
from tests.faults.conftest import Chain, Share
from tests.faults.counts import Counts
from tests.faults.operations import Deed, Fail, Full
from tests.faults.verdicts import wrong_with

Start = Callable[[str], Counts]


def _left(undisturbed: Chain, name: str) -> bool:
    """Whether a file is what could not be removed; the next start takes it away."""
    return ".tmp-" in name or (name.startswith("checkpoints/") and name not in undisturbed.bits)


def _survived(undisturbed: Chain, deed: Deed, *, reads: bool = False) -> str:
    """Meet the error, then go on without it; what became of the fault."""
    with undisturbed.folder() as folder:
        met = undisturbed.run(folder, deed, reads=reads)
        if wrong := wrong_with(met):
            return wrong
        if met.code == 0:
            wrong = undisturbed.differs(folder, may=partial(_left, undisturbed))
            if wrong or not undisturbed.differs(folder):
                return wrong or "same"
        after = undisturbed.goes_on(folder)
        return "sentence" if after == "same" and met.code else after


@pytest.mark.faults(sample=1, parts=16)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_an_operation_that_fails_once_is_one_sentence_or_nothing(
    undisturbed: Chain, counts: Start, share: Share, code: int
) -> None:
    found = counts(f"{errno.errorcode[code]} at a file operation")
    for at in share(range(len(undisturbed.operations))):
        found.note(undisturbed.name(at), _survived(undisturbed, Fail(at, code)))
    found.settle()


@pytest.mark.faults(sample=1, parts=8)
def test_a_place_that_may_not_be_written_is_one_sentence_or_nothing(
    undisturbed: Chain, counts: Start, share: Share
) -> None:
    found = counts("EROFS or EACCES at a file operation")
    codes = itertools.cycle((errno.EROFS, errno.EACCES))
    for at, code in share([*zip(range(0, len(undisturbed.operations), 2), codes, strict=False)]):
        found.note(f"{errno.errorcode[code]}, {undisturbed.name(at)}", _survived(undisturbed, Fail(at, code)))
    found.settle()


@pytest.mark.faults(sample=1, parts=8)
def test_a_file_that_cannot_be_read_is_one_sentence_or_nothing(undisturbed: Chain, counts: Start, share: Share) -> None:
    found = counts("EIO at a reading operation")
    for at in share([i for i, (kind, _) in enumerate(undisturbed.reading) if kind in ("read", "os.scandir")]):
        found.note(undisturbed.name(at, reads=True), _survived(undisturbed, Fail(at, errno.EIO), reads=True))
    found.settle()


@pytest.mark.faults(sample=1, parts=8)
def test_a_disk_that_is_full_from_some_operation_on_is_one_sentence(
    undisturbed: Chain, counts: Start, share: Share
) -> None:
    found = counts("no room from a file operation on")
    for at in share(range(len(undisturbed.operations))):
        found.note(undisturbed.name(at), _survived(undisturbed, Full(at)))
    found.settle()
