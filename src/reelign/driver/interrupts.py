"""Signals as wishes: a run saves and stops where it can, and only an impatient second wish ends it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_BY_HAND = (signal.SIGINT, signal.SIGTERM)
_BY_MACHINE = (signal.SIGHUP, signal.SIGUSR1)
"""A terminal that closes, which may tell twice; a batch system before its time limit."""


class Interrupted(Exception):
    """Ctrl-C: the run can be resumed."""


@contextmanager
def saving_on_interrupt() -> Iterator[list[int]]:
    """Turn signals into a wish to stop: the list gets their numbers.

    A second Ctrl-C or SIGTERM stops at once. Only the main thread hears signals; in another one the list stays empty.
    """
    wish: list[int] = []

    def handler(number: int, frame: object) -> None:
        if number in _BY_HAND and any(earlier in _BY_HAND for earlier in wish):
            raise KeyboardInterrupt
        wish.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.getsignal(number) for number in (*_BY_HAND, *_BY_MACHINE)}
    # What is ignored from the start stays so: a closed terminal under nohup. Not SIGINT, which a shell lets all ignore
    # that a script starts beside itself: who sends it means it, and what is saved can go on. A handler that is not
    # Python's could not be put back.
    ours = [n for n, old in before.items() if old is not None and (old != signal.SIG_IGN or n == signal.SIGINT)]
    for number in ours:
        signal.signal(number, handler)
    try:
        yield wish
    finally:
        for number in ours:
            signal.signal(number, before[number])
