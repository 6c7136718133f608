"""Commands in forked children of a process that has imported everything, so that each costs 0.2 s and not 5.

The process is a plain one: no pytest, no type checks at run time, no captured streams; what a user's `reelign` would
do, its children do.
"""

import gc
import importlib
import os
import pickle
import resource
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
Stderr = Literal["pipe", "terminal", "full", "closed"]
IMPORTED = (
    "reelign.cli", "reelign.glance", "reelign.driver", "reelign.report.page", "reelign.runtime.checkpoint",
    "reelign.models.gaussian", "reelign.methods.sft", "reelign.methods.grpo", "reelign.methods.dpo",
    "reelign.modules.bpgo", "reelign.datasets.clip_folder", "reelign.datasets.pair_list", "reelign.datasets.playground",
    "reelign.metrics.diversity", "reelign.metrics.playground",
    "reelign.rewards.playground_attributes", "reelign.rewards.playground_motion",
    "reelign.rewards.playground_physics", "scipy.stats", "av", "av.subtitles", "rich.progress", "torch._dynamo",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """A command, where it runs, and what is done to it."""

    words: tuple[str, ...]
    """What stands after `reelign`."""
    folder: Path
    """Working folder."""
    before: Callable[[], None] | None = None
    """Done in the child before the command starts; must be picklable."""
    stderr: Stderr = "pipe"
    hang_up: int | None = None
    """Bytes of stderr after which nobody listens any more; a terminal is closed then."""
    ignored: tuple[int, ...] = ()
    """Signals that whoever starts it has it ignore, as nohup does."""
    seconds: float = 30.0
    """Of wall time after which the command hangs."""
    cpu: int = 10
    """Seconds of CPU time after which it hangs too."""
    memory: int = 4 << 30
    """Bytes that it may take."""
    imports: str = ""
    """A module that the parent imports first."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: `code` is its exit code, minus a signal's number, or None for a hang."""

    code: int | None
    out: str
    err: str


class Warm:
    """The warm process, seen from a test."""

    def __init__(self) -> None:
        """Start it."""
        path = os.pathsep.join(p for p in (str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")) if p)
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.faults import warm; warm.serve()"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def __call__(self, *words: object, folder: Path, **job: object) -> Ended:
        """Run `reelign WORDS` in a folder; keywords as `Job` has them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(Job(tuple(map(str, words)), folder, **job), self._process.stdin)  # type: ignore[arg-type]
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        with self._process:
            pass


def serve() -> None:
    """Do what jobs on stdin say, and write to stdout what became of them, both as pickles."""
    # The pickles' own descriptors: whatever an import prints must not come between them.
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    for module in IMPORTED:
        importlib.import_module(module)
    import torch
    import yaml

    torch.set_num_threads(1)
    from reelign import glance

    for recipe in (ROOT / "recipes").glob("*.yaml"):  # the declarations that a glance reads are kept
        glance.recipe(yaml.safe_load(recipe.read_text(encoding="utf-8")))
    gc.collect()
    gc.freeze()  # or each child would copy every page on which its collector looks at an object
    while True:
        try:
            job: Job = pickle.load(jobs)
        except EOFError:
            return
        if job.imports:
            importlib.import_module(job.imports)
            gc.freeze()
        pickle.dump(_run(job, (jobs.fileno(), answers.fileno())), answers)
        answers.flush()


def _run(job: Job, private: Sequence[int]) -> Ended:
    out, out_end = os.pipe()
    err, err_end = os.openpty() if job.stderr == "terminal" else os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for descriptor in (out, err, *private):
                os.close(descriptor)
            _become(job, out_end, err_end)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(98)
    os.close(out_end)
    os.close(err_end)
    texts = {out: b"", err: b""}
    deadline = time.monotonic() + job.seconds
    with selectors.DefaultSelector() as waiting:
        for descriptor in texts:
            waiting.register(descriptor, selectors.EVENT_READ)
        while waiting.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                more = _read(key.fd)
                texts[key.fd] += more
                if not more or (key.fd == err and job.hang_up is not None and len(texts[err]) >= job.hang_up):
                    waiting.unregister(key.fd)
                    os.close(key.fd)
        late = bool(waiting.get_map())
        for key in list(waiting.get_map().values()):
            os.close(key.fd)
    code = _reap(child, deadline, late)
    return Ended(code, *(texts[end].decode("utf-8", "replace") for end in (out, err)))


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # a terminal whose other end is closed
        return b""


def _reap(child: int, deadline: float, late: bool) -> int | None:
    """The exit code; a child that is late, or ends by its limit of CPU time, hangs."""
    while not late:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return None if code == -signal.SIGXCPU else code
        late = time.monotonic() > deadline
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _become(job: Job, out: int, err: int) -> None:
    """Turn this process into the command; never returns."""
    os.dup2(out, 1)
    if job.stderr == "closed":
        os.close(2)
    else:
        os.dup2(os.open("/dev/full", os.O_WRONLY) if job.stderr == "full" else err, 2)
    for descriptor in (out, err):
        os.close(descriptor)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False) if job.stderr != "closed" else None
    os.chdir(job.folder)
    # Nothing here outlives the machine: power losses are simulated, and the disk's answers would be most of the time.
    os.fsync = lambda _: None
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + job.memory
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (job.cpu, job.cpu + 1))  # a child begins at 0
    sys.argv = ["reelign", *job.words]
    from reelign import cli

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests themselves run in the background
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    for number in job.ignored:
        signal.signal(number, signal.SIG_IGN)
    if job.before is not None:
        job.before()
    code: object = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        code = 1
        with suppress(OSError):  # as the interpreter does where nobody can read it
            traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            code = code or 120  # what the interpreter gives when it cannot flush
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
