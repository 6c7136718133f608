"""Torch's CPU threads, each on a core of its own."""

import os

import torch

_TASKS = "/proc/self/task"
_CORES = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()
"""What the process may use, before any thread is bound."""


def bind(threads: int = 0) -> bool:
    """Tie each of torch's CPU threads to a core of its own, where they are as many as the cores.

    The threads of a step wait for each other a thousand times, turning on their cores meanwhile. Where another process
    wants a core too, the kernel moves them about, and while one thread is off its core all others wait: one busy
    process makes a training step three times as long. Threads that stay where they are lose no more than their share.

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
    torch.ones(1 << 20).mul_(1.0)  # enough for all of them: the first such work starts the threads
    started = sorted(int(task) for task in set(os.listdir(_TASKS)) - before)
    if len(started) != len(cores) - 1:
        return False  # they had been started before, and cannot be told from others
    for task, core in zip((me, *started), cores, strict=True):
        os.sched_setaffinity(task, {core})
    return True


def release() -> None:
    """Let the calling thread use every core that its process may use."""
    if _CORES:
        os.sched_setaffinity(0, _CORES)
