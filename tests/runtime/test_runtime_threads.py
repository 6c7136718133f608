"""Threads are bound where they are as many as the cores, and what runs beside them is not."""

import json
import os
import subprocess
import sys

import pytest

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
