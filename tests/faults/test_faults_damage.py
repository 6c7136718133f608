"""Every file and folder of a run, stopped or finished, damaged by hand, and then resumed and reported."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults import chain, damage
from tests.faults.conftest import Chain, Share
from tests.faults.counts import Counts
from tests.faults.verdicts import wrong_with

Start = Callable[[str], Counts]
Stopped = Callable[..., Path]
UNREAD = ("samples", "pairs", "checkpoints")
"""What may stay damaged if nothing needs it any more; the results that came of it are compared."""


def _places(run: Path, other: Path) -> Iterator[tuple[str, str]]:
    """Every path in a run with each damage that can be done to it."""
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        for what in damage.FOLDERS if path.is_dir() else damage.FILES:
            if (what != "another run's" or (other / name).exists()) and (path.is_dir() or path.stat().st_size):
                yield name, what


@pytest.mark.faults(sample=1, parts=16)
@pytest.mark.parametrize("stage", ["grpo", "dpo", ""], ids=["in GRPO", "in DPO", "finished"])
def test_a_damaged_run_gives_the_same_bits_or_one_sentence_and_loses_nothing(
    undisturbed: Chain, stopped: Stopped, counts: Start, share: Share, stage: str
) -> None:
    found = counts(f"damage to a run that was {'stopped' if stage else 'finished'}")
    whole, other = stopped(stage), stopped(stage, seed=4) / "runs" / chain.NAME
    for name, what in share([*_places(whole / "runs" / chain.NAME, other)]):
        with undisturbed.folder() as folder:
            shutil.copytree(whole, folder, dirs_exist_ok=True)
            path = folder / "runs" / chain.NAME / name
            (damage.FOLDERS if path.is_dir() else damage.FILES)[what](path, other / name)
            found.note(f"{stage or 'finished'}: {name} {what}", _survived(undisturbed, folder, path, whole))
    found.settle()


def _survived(undisturbed: Chain, folder: Path, path: Path, whole: Path) -> str:
    run = folder / "runs" / chain.NAME
    name, damaged = str(path.relative_to(run)), damage.state(path)
    before, states = _contents(run), _states(run)
    reported = undisturbed.warm("report", f"runs/{chain.NAME}", folder=folder)
    if wrong := wrong_with(reported):
        return f"report: {wrong}"
    if _states(run) != states:
        return "report changes the run"
    resumed = undisturbed.warm("align", "recipe.yaml", "--resume", folder=folder)
    if wrong := wrong_with(resumed):
        return f"resuming: {wrong}"
    if resumed.code == 0:
        now = _contents(run)
        idle = f"{'/'.join(name.split('/')[:2])}/" if name.startswith("checkpoints/") else f"{name}/"

        def may(each: str) -> bool:
            """Whether it is out of use: damaged and needed by nobody any more, what lies with it, or put aside."""
            unread = f"{each}/".startswith(idle) and each.startswith(UNREAD) and now.get(each) == before.get(each)
            return unread or (".aside-" in each and each not in undisturbed.bits)

        # Rows of metrics that cannot be read are lost, which is said; nothing hangs on them.
        mended = name == "metrics.jsonl" and f"{name} is not what the checkpoint has sealed; " in resumed.err
        return undisturbed.differs(folder, lambda each: may(each) or (mended and each == name)) or "same"
    if damage.state(path) == damaged:
        _put_back(path, whole / path.relative_to(folder))
    after = undisturbed.goes_on(folder)
    return "sentence" if after == "same" else f"put back after a refusal: {after}"


def _contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in chain.files(run)}


def _states(run: Path) -> dict[str, object]:
    return {path.name: damage.state(path) for path in run.iterdir() if path.name != "report.html"}


def _put_back(path: Path, from_: Path) -> None:
    damage.remove(path)
    if from_.is_dir():
        shutil.copytree(from_, path)
    else:
        shutil.copy(from_, path)
