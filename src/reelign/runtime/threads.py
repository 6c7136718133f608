"""Torch's CPU threads: each on a core of its own, and quick to sleep while few others want the cores."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

_TASKS = "/proc/self/task"
_CORES = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()
"""What the process may use, before any thread is bound."""
_WORK = 1 << 20
"""Elements that are enough for torch to use all threads."""


def bind(threads: int = 0) -> bool:
    """Tie each of torch's CPU threads to a core of its own, where they are as many as the cores.

    The threads of a step wait for each other a thousand times, turning on their cores meanwhile. Where another process
    wants a core too, the kernel moves them about, and while one thread is off its core all others wait: one busy
    process makes a training step three times as long. Threads that stay where they are lose no more than their share.
    From then on they are watched, as `Watch` says.

    For processes of our own only: what this thread starts later, threads and processes alike, inherits its core. Give
    it back with `release` there. Fewer threads than cores stay free, since two such processes would take the same
    cores. Linux only.

    Args:
        threads: how many torch is to use; 0 leaves torch's choice.

    Returns:
        Whether they are bound now.
    """
    if threads:
        torch.set_num_threads(threads)
    if not os.path.isdir(_TASKS):
        return False
    cores, me = sorted(_CORES), os.getpid()
    if len(cores) < 2 or torch.get_num_threads() != len(cores):
        return False
    before = set(os.listdir(_TASKS))
    torch.ones(_WORK).mul_(1.0)  # starts the threads
    started = sorted(int(task) for task in set(os.listdir(_TASKS)) - before)
    if len(started) != len(cores) - 1:
        return False  # they had been started before, and cannot be told from others
    watch = Watch(dict(zip((me, *started), cores, strict=True)))
    watch.bind()
    threading.Thread(target=watch.forever, daemon=True, name="watch of cores").start()
    return True


def release() -> None:
    """Let the calling thread use every core that its process may use."""
    if _CORES:
        os.sched_setaffinity(0, _CORES)


def yields(waiting: float, threads: int, yielding: bool) -> bool:
    """Whether threads had better sleep as soon as they wait for each other, and go to whichever core is free.

    While one process wants one of two cores, a step takes 0.8 times as long so as on cores of their own; while nobody
    does 1.5 times, and while many do 1.4 times (docs/adr/0011).

    Args:
        waiting: how many of the threads waited for a core, on average over the last while.
        threads: how many there are.
        yielding: whether they do so now; then it takes less to go on with it.
    """
    return (0.05 if yielding else 0.1) < waiting < 0.45 * threads


class Watch:
    """Binds threads to cores, and lets go of them while they had better yield."""

    def __init__(self, cores: Mapping[int, int], delays: Callable[[int], int] | None = None) -> None:
        """Keep what core is whose.

        Args:
            cores: by thread.
            delays: gives the nanoseconds that a thread has waited for a core so far; the default asks the kernel.
        """
        self._cores, self._delays = cores, delays or _delay
        self._done: threading.Event | None = None
        """Set when the threads need yield no longer; None while they do not."""
        self._seen: dict[int, int] = {}

    def bind(self) -> None:
        """Each thread to its core."""
        for task, core in self._cores.items():
            os.sched_setaffinity(task, {core})

    def forever(self) -> None:
        """Look once a second, until a thread is gone or the kernel does not count."""
        release()
        while True:
            began = time.monotonic()
            time.sleep(1.0)
            try:
                self.look(time.monotonic() - began)
            except OSError:
                return

    def look(self, seconds: float) -> None:
        """Yield or not, as the time says that threads have waited for cores since the last look."""
        now = {task: self._delays(task) for task in self._cores}
        waiting = sum(now[task] - self._seen.get(task, now[task]) for task in now) / (1e9 * seconds)
        self._seen = now
        yielding = yields(waiting, len(now), self._done is not None)
        if yielding and self._done is None:
            for task in self._cores:
                os.sched_setaffinity(task, _CORES)
            self._done = _crowd()
        elif not yielding and self._done is not None:
            self._done.set()
            self._done = None
            self.bind()


def _crowd() -> threading.Event:
    """Make GNU's OpenMP count more threads than cores, until the event is set.

    While it does, all its threads sleep after a hundred turns instead of `GOMP_SPINCOUNT`: the one way to change that
    in a running process. The threads that it counts are those of a team that another thread has started; they sleep.
    Another OpenMP takes no notice.
    """
    started, done = threading.Event(), threading.Event()

    def hold() -> None:
        torch.ones(_WORK).mul_(1.0)
        started.set()
        done.wait()

    threading.Thread(target=hold, daemon=True, name="team that waits").start()
    started.wait()
    return done


def _delay(task: int) -> int:
    """Nanoseconds that a thread of this process was ready to run and had no core.

    Raises:
        OSError: it is gone, or the kernel does not count.
    """
    return int(Path(_TASKS, str(task), "schedstat").read_text().split()[1])
