"""The runs of a bake-off: each entry with each seed, to the same budget, judged at the same points on the way.

    runs/<name>/
      start/                 the evaluation that all runs start from
      <label>-seed<n>/       a run: config.json, metrics.jsonl, evaluations/, samples/ as in any run folder, and
        result.jsonl         a row a check; it appears whole when the run is finished
      bakeoff.json, bakeoff.html

A finished run is never made again. One that was interrupted starts again from its beginning: runs take minutes, and a
bake-off keeps no checkpoints.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reelign
from reelign import config as configs
from reelign import driver, parts
from reelign.bakeoff.spec import Entry, Spec, differences, recipe
from reelign.driver import Look
from reelign.driver.judging import trained_on
from reelign.driver.run_folder import RunFolder
from reelign.errors import BadConfig, RunStopped
from reelign.events import Event, Progress
from reelign.files import remove, sweep, write_text, writing
from reelign.panel import Metrics
from reelign.records import Check
from reelign.runtime.local import device
from reelign.stages import evaluate

Json = dict[str, Any]
RESULT = "result.jsonl"
START = "base"
"""Label of the evaluation that every run starts from."""


@dataclass(frozen=True, slots=True)
class Run:
    """One entry with one seed."""

    spec: Spec
    entry: Entry
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.entry.label}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return folder_of(self.spec) / self.name

    @property
    def settings(self) -> Json:
        """All that its result depends on."""
        return {**configs.dump(recipe(self.spec, self.entry, self.seed)), **self.own}

    @property
    def own(self) -> Json:
        """What a recipe has no words for."""
        return {"bakeoff": {"budget": self.spec.budget, "checks": self.spec.checks}}

    @property
    def finished(self) -> bool:
        """Whether its result is there."""
        return (self.folder / RESULT).is_file()


def folder_of(spec: Spec) -> Path:
    """Where a bake-off lies."""
    return Path(spec.root) / spec.name


def all_runs(spec: Spec) -> list[Run]:
    """Every run, in the order in which they are made.

    One seed of all entries after the other, so that a machine that grows slower, or an early end, hurts none of them
    in particular.
    """
    return [Run(spec, entry, seed) for seed in spec.seeds for entry in spec.entries]


def run(spec: Spec, watcher: Progress, only: Sequence[str] = ()) -> Path:
    """Make the runs that are not there yet; returns the bake-off's folder.

    Args:
        spec: checked with `spec.check`.
        watcher: is shown the progress in forward-units, evaluations included.
        only: labels of the entries to run now; without any, all.

    Raises:
        UserError: a finished run was made with other settings, another process holds the folder, or a run fails before
            its first iteration is done.
    """
    folder = folder_of(spec)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(RunFolder(folder).locked(watcher.say))
        except BadConfig as error:
            raise BadConfig(
                f"another process is running the bake-off in {str(folder)!r}; wait for it, or choose another `name`."
            ) from error
        runs = all_runs(spec)
        sweep(_own(folder, runs))
        versions = Metrics.build(spec.evaluate.metrics).versions
        for each in runs:
            _same_settings(each)
            _same_versions(each, versions)
        wanted = [each for each in runs if not each.finished and (not only or each.entry.label in only)]
        if wanted:
            _make(spec, wanted, watcher)
    return folder


def _own(folder: Path, runs: Sequence[Run]) -> Iterator[Path]:
    """The folders that a bake-off writes into."""
    yield folder
    for each in (folder / "start", *(run.folder for run in runs)):
        yield from (each, each / "evaluations", each / "samples")
        yield from sorted((each / "samples").glob("*"))


def _same_settings(each: Run) -> None:
    """See that a finished run is one of this spec."""
    if not each.finished:
        return
    written = json.loads((each.folder / "config.json").read_text(encoding="utf-8"))
    before = {**written["config"], **{key: written[key] for key in each.own if key in written}}
    apart = differences({"then": before, "now": json.loads(json.dumps(each.settings))})
    # What an older version had no word for was as it is by default.
    changed = {path: values for path, values in apart.items() if "then" in values}
    if changed:
        path, values = next(iter(changed.items()))
        raise BadConfig(
            f"{str(each.folder)!r} was run with other settings ({path}: {values.get('then')!r} then, "
            f"{values.get('now')!r} now); choose another `name`, or remove that folder."
        )


def _same_versions(each: Run, now: Mapping[str, str]) -> None:
    """See that a finished run was judged by what judges now."""
    if not each.finished:
        return
    judged = json.loads((each.folder / "evaluations" / f"{START}.json").read_text(encoding="utf-8"))["measures"]
    for name, version in now.items():
        then = judged[name].get("version", version)
        if then != version:
            raise BadConfig(
                f"{str(each.folder)!r} was judged by another version of what measures {name} ({then} then, {version} "
                "now); choose another `name`, or remove that folder."
            )


class _Progress:
    """What has been computed and what is still to come, in forward-units."""

    def __init__(self, spec: Spec, runs: int, watcher: Progress) -> None:
        sampler = spec.evaluate.sampler
        self.clip = sampler.steps * (1 if sampler.guidance == 1.0 else 2)
        self.evaluation = evaluate.clips(spec.evaluate) * self.clip
        self._watcher, self._done = watcher, 0
        total = self.evaluation + runs * (spec.budget + (spec.checks - 1) * self.evaluation)
        watcher.begin(spec.name, total, 0)

    def show(self, extra: int, metrics: Mapping[str, float] | None = None) -> None:
        self._watcher.step(self._done + extra, metrics or {})

    def add(self, units: int) -> None:
        self._done += units
        self.show(0)


def _make(spec: Spec, wanted: list[Run], watcher: Progress) -> None:
    progress = _Progress(spec, len(wanted), watcher)
    _start(spec, wanted[0], progress)
    for each in wanted:
        checks = _One(each, progress).run()
        progress.add(spec.budget + (spec.checks - 1) * progress.evaluation)
        runs, last = all_runs(spec), checks[-1]
        watcher.say(
            f"{each.entry.label}, seed {each.seed}: {spec.target.measure} {_level(each, checks[0])} to "
            f"{_level(each, last)} with {last.units:,} forward-units in {last.step} iterations and {last.seconds:.0f} s"
            + (f"; stopped: {last.stopped}" if last.stopped else "")
            + f" ({sum(other.finished for other in runs)} of {len(runs)} runs)"
        )


def _level(each: Run, check: Check) -> str:
    content = json.loads((each.folder / check.evaluation).read_text(encoding="utf-8"))
    mean = content["measures"][each.spec.target.measure]["mean"]
    return "nowhere" if mean is None else f"{mean:.3g}"


def _start(spec: Spec, first: Run, progress: _Progress) -> None:
    """Judge the weights that all runs start from, once: same weights, prompts and noise give the same clips."""
    folder = folder_of(spec) / "start"
    settings = {key: first.settings[key] for key in ("model", "evaluate", "runtime")}
    written = {"hash": _digest(settings), "version": reelign.__version__, "config": settings}
    written |= {"metrics": Metrics.build(spec.evaluate.metrics).versions}
    config = folder / "config.json"
    if not config.exists() or json.loads(config.read_text(encoding="utf-8")) != written:
        _clear(folder)
        model = parts.build("model", spec.model, device(spec.runtime))
        trained = trained_on(recipe(spec, first.entry, first.seed))
        for clips in evaluate.run(model, spec.evaluate, START, folder, START, trained):
            progress.show(clips * progress.clip)
        write_text(config, json.dumps(written, indent=1))
    progress.add(progress.evaluation)


def _clear(folder: Path) -> None:
    """Remove what an interrupted run has left, and nothing else.

    Raises:
        BadConfig: there is something else in its folder.
    """
    own = {RESULT, "config.json", "run.json", "log.txt", "metrics.jsonl", "samples.jsonl", "evaluations", "samples"}
    found = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")] if folder.is_dir() else []
    for path in found:
        if path.name not in own:
            raise BadConfig(f"{str(path)!r} is not the bake-off's; move it away, or choose another `name`.")
    for path in found:
        with writing(path):
            remove(path)


def _digest(settings: Json) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


class _One:
    """A run under way: counts what the driver tells of it, has it judged at equal parts of the budget, and ends it."""

    keeps = False

    def __init__(self, each: Run, progress: _Progress) -> None:
        """Begin where all runs do."""
        self.each, self.spec, self.progress = each, each.spec, progress
        self.checks = [Check(check=0, evaluation=f"evaluations/{START}.json")]
        self.now = self.checks[0]
        """Where it stands."""

    def run(self) -> list[Check]:
        """Train to the end of the budget; returns the checks, which are on the disk then."""
        _clear(self.each.folder)
        try:
            driver.run(recipe(self.spec, self.each.entry, self.each.seed), [self], about=self.each.own, pace=self)
        except RunStopped:
            if not self.now.stopped:
                raise
        for number in range(len(self.checks), self.spec.checks):
            self.checks.append(self.now.model_copy(update={"check": number}))
        text = "".join(json.dumps(check.dump(), ensure_ascii=False) + "\n" for check in self.checks)
        write_text(self.each.folder / RESULT, text)
        return self.checks

    def look(self, event: Event) -> Look | None:
        """The start is known; checks come with the first step at or after their due, and once a run cannot go on."""
        if event.stage == START:
            for known in (folder_of(self.spec) / "start" / name for name in ("evaluations", "samples")):
                if known.is_dir():
                    shutil.copytree(known, self.each.folder / known.name)
            return None
        if event.kind == "step":
            self._count(event)
            return self._check() if self._due() else None
        if self.now.step:
            self.now = self.now.model_copy(update={"stopped": event.data["text"]})
        # With broken weights nothing can be sampled; those that were judged last stand for them.
        return None if not self.now.stopped or event.data["broken"] else self._check()

    def over(self, event: Event) -> bool:
        """With the last check."""
        if event.kind == "evaluation":
            judged = {"check": len(self.checks), "evaluation": f"evaluations/{event.data['label']}.json"}
            self.now = self.now.model_copy(update=judged)
            self.checks.append(self.now)
        return len(self.checks) == self.spec.checks

    def send(self, event: Event) -> None:
        """Show how much of the budget is spent."""
        if event.kind == "step":
            self.progress.show(self._passed(event.data["forwards"]), event.data)
        elif event.kind == "phase" and event.data["phase"] == "evaluating":
            self.progress.show(self._passed(self.now.units) + event.step * self.progress.clip)

    def close(self) -> None:
        """The runs after this one are shown too."""

    def _count(self, event: Event) -> None:
        told = event.data
        spent = {"rollout_s": "rollout/wall_s", "decode_s": "decode/wall_s", "reward_s": "reward/wall_s"}
        spent |= {"update_s": "update/wall_s", "seconds": "wall_s"}
        sums = {name: getattr(self.now, name) + told.get(key, 0.0) for name, key in spent.items()}
        self.now = self.now.model_copy(update={"step": event.step, "units": told["forwards"], **sums})

    def _due(self) -> bool:
        number, gap = len(self.checks), self.spec.budget / (self.spec.checks - 1)
        if self.now.units >= (number + 1) * gap:
            raise BadConfig(
                f"an iteration of entry {self.each.entry.label!r} takes up to "
                f"{self.now.units - self.checks[-1].units:,} forward-units, but checks are {gap:,.0f} apart; raise "
                "`budget`, lower `checks`, or make the iteration smaller."
            )
        return self.now.units >= number * gap

    def _check(self) -> Look:
        """The next check; only the last one keeps videos."""
        last = len(self.checks) == self.spec.checks - 1
        config = self.spec.evaluate if last else self.spec.evaluate.model_copy(update={"videos": 0})
        return Look(f"check-{len(self.checks):02d}", config)

    def _passed(self, units: int) -> int:
        """Forward-units of this run so far, with its evaluations."""
        return min(units, self.spec.budget) + (len(self.checks) - 1) * self.progress.evaluation
