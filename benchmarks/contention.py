"""What a busy machine costs a GRPO iteration of the demo, with threads bound to cores as `reelign` does, and free.

Two processes take turns, one that waits and is bound as `reelign` does, and one left as torch is: on the idle machine,
then beside one process that computes without end, then beside four. Prints the median seconds of an iteration, and
three figures: bound against free where nothing else runs, and what one and four busy processes make of it. On an idle
machine with two cores or more:

    python benchmarks/contention.py [--rounds 4] [--repeats 4]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUSY = (0, 1, 4)
BOUNDS = {"idle": 1.05, 1: 2.2, 4: 6.0}


def serve(bound: bool) -> None:
    """Answer every number on stdin with the seconds of so many iterations."""
    from reelign.cli._process import wait_shortly

    if bound:
        wait_shortly()  # before torch is loaded, as the command does

    from reelign import config as configs
    from reelign import driver, parts
    from reelign.playground import demo
    from reelign.runtime import threads
    from reelign.runtime.local import Local, device
    from reelign.stage import Context
    from reelign.stages import online

    if bound and not threads.bind(len(os.sched_getaffinity(0))):
        sys.exit("the threads cannot be bound here: this needs Linux and two cores")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        demo.write_data(data, clips=8, prompts=64, judged=8)
        recipe = configs.validate(driver.Recipe, configs.override(demo.recipe(data), ["runtime.threads=0"]))
        stage = next(s for s in recipe.stages if isinstance(s, online.Config))
        stage = stage.model_copy(update={"steps": 10**6})
        model = parts.build("model", recipe.model, device(recipe.runtime))
        built = online.build(stage, Context(0, Path(folder), "grpo"))
        with Local(model).stage(built.spec) as work:
            iterations = built.run(work, 0)
            next(iterations)  # warm-up: text features, allocator
            print("ready", flush=True)
            for line in sys.stdin:
                for _ in range(int(line)):
                    began = time.perf_counter()
                    next(iterations)
                    print(time.perf_counter() - began, flush=True)


@contextmanager
def servers() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Both processes, warmed up."""
    started = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("free", "bound")
    }
    try:
        for process in started.values():
            if process.stdout is None or process.stdout.readline() != "ready\n":
                sys.exit(1)
        yield started
    finally:
        for process in started.values():
            process.kill()
            process.wait()


@contextmanager
def beside(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def timed(process: subprocess.Popen[str], repeats: int) -> list[float]:
    """Seconds of so many iterations of a server."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{repeats}\n")
    process.stdin.flush()
    return [float(process.stdout.readline()) for _ in range(repeats)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="turns of each process beside each number of busy ones")
    parser.add_argument("--repeats", type=int, default=4, help="iterations of a turn")
    parser.add_argument("--serve", choices=("free", "bound"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve == "bound")
        return
    seconds: dict[tuple[str, int], list[float]] = {(name, n): [] for name in ("free", "bound") for n in BUSY}
    with servers() as running:
        for busy in BUSY:
            with beside(busy):
                for _ in range(options.rounds):
                    for name, process in running.items():
                        seconds[name, busy] += timed(process, options.repeats)
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    print("busy processes   " + "".join(f"{n:>10}" for n in BUSY))
    for name in ("free", "bound"):
        print(f"{name:15}  " + "".join(f"{middle[name, n]:>8.2f} s" for n in BUSY))
    figures = {"idle": middle["bound", 0] / middle["free", 0]}
    figures |= {n: middle["bound", n] / middle["bound", 0] for n in BUSY[1:]}
    print(f"bound / free where nothing else runs: {figures['idle']:.2f} (at most {BOUNDS['idle']})")
    for n in BUSY[1:]:
        print(f"beside {n} busy / alone, bound: {figures[n]:.2f} (at most {BOUNDS[n]})")
    sys.exit(any(figures[key] > most for key, most in BOUNDS.items()))


if __name__ == "__main__":
    main()
