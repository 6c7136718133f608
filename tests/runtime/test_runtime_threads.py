"""Threads are bound where they are as many as the cores, and what runs beside them is not."""

import json
import os
import subprocess
import sys

import pytest

from reelign.runtime import threads

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
LOOK = """
import json, os
from concurrent.futures import ThreadPoolExecutor
from reelign.runtime import threads
bound = threads.bind({count})
own = [sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")]
with ThreadPoolExecutor(1, initializer=threads.release) as pool:
    beside = sorted(pool.submit(os.sched_getaffinity, 0).result())
print(json.dumps([bound, own, beside]))
"""


def look(count: int) -> tuple[bool, list[list[int]], list[int]]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(count=count)], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(CORES < 2, reason="needs two cores")
def test_each_core_has_one_thread_and_a_thread_beside_them_has_all():
    bound, own, beside = look(CORES)
    cores = sorted(os.sched_getaffinity(0))
    assert bound
    assert {tuple(mask) for mask in own} >= {(core,) for core in cores}
    assert beside == cores


@pytest.mark.skipif(CORES < 2, reason="needs two cores")
def test_fewer_threads_than_cores_stay_free():
    bound, own, beside = look(1)
    assert not bound
    assert all(mask == beside for mask in own)


@pytest.mark.parametrize(
    ("waiting", "yielding", "then"),
    [
        (0.0, False, False),
        (0.08, False, False),  # what a machine does beside
        (0.08, True, True),  # it takes less to go on
        (0.5, False, True),  # one process wants one of two cores
        (0.04, True, False),
        (1.4, False, False),  # many want both
        (1.4, True, False),
    ],
)
def test_threads_yield_while_few_others_want_their_cores(waiting: float, yielding: bool, then: bool):
    assert threads.yields(waiting, 2, yielding) is then
    assert threads.yields(0.5, 16, yielding)  # one beside many threads


WATCH = """
import json, os
from reelign.runtime import threads
import torch
cores = sorted(os.sched_getaffinity(0))
before = set(os.listdir("/proc/self/task"))
torch.ones(1 << 20).mul_(1.0)
own = [os.getpid(), *(int(task) for task in set(os.listdir("/proc/self/task")) - before)]
waited, seen = 0, []
watch = threads.Watch(dict(zip(own, cores)), lambda task: waited)
watch.bind()
first = torch.rand(300, 300) @ torch.ones(300, 300)
for share in (0.0, 0.25, 0.25, 0.01, 0.9):
    waited += int(share * 1e9)
    watch.look(1.0)
    seen.append([sorted(os.sched_getaffinity(task)) for task in own] + [len(os.listdir("/proc/self/task"))])
print(json.dumps([cores, seen]))
"""


@pytest.mark.skipif(CORES != 2, reason="needs two cores")
def test_threads_are_let_go_while_they_yield_and_bound_again_when_the_others_are_gone():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    done = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, check=True, env=environment)
    cores, seen = json.loads(done.stdout)
    bound, free = [[cores[0]], [cores[1]]], [cores, cores]
    assert [row[:-1] for row in seen] == [bound, free, free, bound, bound]
    before, *crowded = (row[-1] for row in seen[:3])
    assert crowded == [before + 2, before + 2]  # a team that sleeps


def test_what_the_kernel_says_of_a_thread_is_read():
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/schedstat"):
        pytest.skip("the kernel does not count")
    assert threads._delay(os.getpid()) >= 0
    with pytest.raises(OSError, match="No such file"):
        threads._delay(2**22 + 1)
