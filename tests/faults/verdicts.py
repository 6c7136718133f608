"""Whether a command ended as it may: it went well, or it said in one sentence why not."""

import re

from tests.faults.warm import Ended

LONGEST = 1000
"""Characters of a sentence."""
LOGGED = re.compile(r"(INFO|WARNING) ")


def wrong_with(ended: Ended, *, quiet: bool = False, also: tuple[int, ...] = ()) -> str:
    """Empty if it ended as it may; else what is wrong.

    It may end with 0, or with 2 and one sentence. `also`: other codes with one sentence, or negative numbers of signals
    to die of. `quiet`: it may show nothing but that sentence, and logs.
    """
    last = ended.err.strip().rpartition("\n")[2]
    if ended.code is None:
        return "hangs"
    if "Traceback (most recent call last)" in ended.err:
        return f"traceback: {last[:300]}"
    if ended.code not in (0, 2, *also):
        return f"exit {ended.code}: {last[:300]}"
    if quiet and (odd := [line for line in ended.err.splitlines() if line and not _known(line)]):
        return f"prints {odd[0][:300]!r}"
    return "" if ended.code <= 0 else _no_sentence(ended.err)


def sentence(ended: Ended) -> str:
    """What it said on its last line."""
    return ended.err.strip().rpartition("\n")[2].removeprefix("reelign: ")


def _known(line: str) -> bool:
    return line.startswith("reelign: ") or LOGGED.match(line) is not None


def _no_sentence(err: str) -> str:
    lines = err.strip().split("\n")
    said = [line for line in lines if line.startswith("reelign: ")]
    if said != lines[-1:]:
        return f"says {len(said)} sentences, and last {lines[-1][:300]!r}"
    if len(said[0]) > LONGEST:
        return f"says {len(said[0])} characters: {said[0][:200]!r}"
    return "" if said[0].rstrip().endswith((".", "?", "!")) else f"says no sentence: {said[0][-300:]!r}"
