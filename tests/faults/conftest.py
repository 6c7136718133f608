"""What the fault suites share: the warm process, which share of all faults a test injects, and an undisturbed run."""

import itertools
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.faults import chain
from tests.faults.counts import Counts
from tests.faults.operations import Deed, Kill, Record, Watch
from tests.faults.verdicts import sentence, wrong_with
from tests.faults.warm import Ended, Warm

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """Which of all faults one test injects."""

    index: int
    of: int
    """Parts that all faults are cut into; 0: a sample."""
    sample: int
    seed: int

    def __call__(self, everything: Sequence[T]) -> Sequence[T]:
        """The part, or a sample drawn from all of them."""
        if self.of:
            return everything[self.index :: self.of]
        drawn = random.Random(self.seed).sample(range(len(everything)), min(self.sample, len(everything)))
        return [everything[i] for i in sorted(drawn)]


def _option(config: pytest.Config, name: str) -> Any:
    return config.getoption(name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("faults")
    if marker is None:
        return
    sample, parts, seed = marker.kwargs["sample"], marker.kwargs["parts"], _option(metafunc.config, "--seed")
    whole = [Share(i, parts, sample, seed) for i in range(parts)]
    shares = whole if _option(metafunc.config, "--whole") else [Share(0, 0, sample, seed)]
    metafunc.parametrize("share", shares, ids=[f"{s.index + 1} of {s.of}" if s.of else "sample" for s in shares])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("faults"):
            # A sample is cheaper than a second warm process; everything needs both workers and more time.
            whole = _option(config, "--whole")
            item.add_marker(pytest.mark.timeout(3000) if whole else pytest.mark.xdist_group("faults"))


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    process = Warm()
    yield process
    process.close()


@pytest.fixture
def counts(request: pytest.FixtureRequest) -> Callable[[str], Counts]:
    """`counts("kind")`: of one kind of fault; written down where everything is injected."""
    return partial(Counts, request.path.name, _option(request.config, "--whole"))


@pytest.fixture
def mutants(request: pytest.FixtureRequest) -> Callable[[int], range]:
    """`mutants(n)`: the seeds of n mutants, or of as many as the command line asks for."""
    first, asked = 1_000_000 * _option(request.config, "--seed"), _option(request.config, "--mutants")
    return lambda n: range(first, first + (asked or n))


@dataclass(frozen=True)
class Chain:
    """Runs of the chain, each in a folder of its own."""

    warm: Warm
    root: Path
    bits: dict[str, str]
    """Of the undisturbed run."""
    operations: tuple[tuple[str, str], ...]
    """Kind and path of each operation that changes something, in order."""
    reading: tuple[tuple[str, str], ...]
    """The same with those that only read."""
    _names: Iterator[int] = field(default_factory=itertools.count)

    def name(self, at: int, *, reads: bool = False) -> str:
        """An operation as a message shows it."""
        kind, path = (self.reading if reads else self.operations)[at]
        return f"operation {at}, {kind} of {path.partition(f'/{chain.NAME}/')[2] or 'the run folder'}"

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A working folder with the recipe in it, for one run."""
        folder = self.root / f"{next(self._names)}"
        chain.lay_out(folder)
        yield folder
        shutil.rmtree(folder)

    def run(self, folder: Path, deed: Deed | None = None, *, reads: bool = False, **job: Any) -> Ended:
        """Start the run, or go on with it if it was started."""
        begun = (folder / "runs" / chain.NAME / "config.json").exists()
        words = ("align", "recipe.yaml", *(["--resume"] if begun else []))
        before = Watch(folder, deed, reads) if deed is not None else None
        return self.warm(*words, folder=folder, before=before, **job)

    def goes_on(self, folder: Path) -> str:
        """Resume with nothing in the way: "same" if that gives the bits of the undisturbed run, else what is wrong."""
        again = self.run(folder)
        if again.code != 0:
            return f"resuming: {wrong_with(again) or sentence(again)}"
        left = [path.name for path in chain.files(folder) if ".tmp-" in str(path)]
        return self.differs(folder) or (f"leaves {left[0]}" if left else "same")

    def differs(self, folder: Path, may: Callable[[str], bool] = lambda _: False) -> str:
        """Empty if the run has the bits of the undisturbed one, but for files that may differ; else what differs."""
        found = chain.bits(folder / "runs" / chain.NAME)
        names = [n for n in {**self.bits, **found} if self.bits.get(n) != found.get(n) and not may(n)]
        return f"differs in {', '.join(names[:5])}" if names else ""


@pytest.fixture(scope="session")
def undisturbed(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    root = tmp_path_factory.mktemp("chain")
    logs = []
    for reads in (False, True):
        run, log = chain.lay_out(root / f"whole-{reads}"), root / f"{reads}.tsv"
        ended = warm("align", "recipe.yaml", folder=run.parents[1], before=Watch(run.parents[1], Record(log), reads))
        assert ended.code == 0, ended.err
        logs.append(tuple(tuple(line.split("\t")) for line in log.read_text().splitlines()))
    yield Chain(warm, root, chain.bits(run), *logs)
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def stopped(undisturbed: Chain) -> Callable[..., Path]:
    """`stopped("dpo", seed)`: a run killed behind its first checkpoint in that stage, or none if ""; tests copy it."""
    made: dict[tuple[str, int], Path] = {}

    def at(stage: str, seed: int = 3) -> Path:
        if (stage, seed) not in made:
            folder = undisturbed.root / f"{stage}-{seed}"
            chain.lay_out(folder, seed)
            ended = undisturbed.run(folder, Kill(f"{stage}-00003") if stage else None)
            assert ended.code == (-signal.SIGKILL if stage else 0), ended.err
            made[stage, seed] = folder
        return made[stage, seed]

    return at
