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
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import reelign
from reelign import config as configs
from reelign import panel, parts
from reelign.bakeoff.count import Counted
from reelign.bakeoff.spec import Entry, Spec, differences, recipe
from reelign.core import rng
from reelign.driver import Watcher
from reelign.driver.run_folder import RunFolder
from reelign.errors import BadConfig, RunStopped
from reelign.files import remove, sweep, write_text, writing
from reelign.protocols import VideoModel
from reelign.runtime.journal import Journal
from reelign.runtime.local import Local, device
from reelign.runtime.local_work import LocalWork
from reelign.stage import Context, Report, Stage
from reelign.stages import evaluate

Json = dict[str, Any]
RESULT = "result.jsonl"
START = "base"
"""Label of the evaluation that every run starts from."""


@dataclass(frozen=True, slots=True)
class Check:
    """Where a run stood when it was judged; everything is counted from its start and leaves evaluation out.

    `reward_s` is without decoding. `stopped` says why a run ended before its budget; its weights of then are judged at
    every later check, or those judged before, where an update broke them.
    """

    check: int
    evaluation: str
    """Path of the evaluation, below the run's folder."""
    step: int = 0
    units: int = 0
    seconds: float = 0.0
    rollout_s: float = 0.0
    decode_s: float = 0.0
    reward_s: float = 0.0
    update_s: float = 0.0
    stopped: str = ""


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
        tree = configs.dump(recipe(self.spec, self.entry, self.seed))
        return {**tree, "bakeoff": {"budget": self.spec.budget, "checks": self.spec.checks}}

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


def run(spec: Spec, watcher: Watcher, only: Sequence[str] = ()) -> Path:
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
        versions = panel.versions(panel.metrics(spec.evaluate.metrics))
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
    before = json.loads((each.folder / "config.json").read_text(encoding="utf-8"))["config"]
    changed = differences({"then": before, "now": json.loads(json.dumps(each.settings))})
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

    def __init__(self, spec: Spec, runs: int, watcher: Watcher) -> None:
        sampler = spec.evaluate.sampler
        self._clip = sampler.steps * (1 if sampler.guidance == 1.0 else 2)
        self.judging = evaluate.prepare(spec.evaluate)
        self.evaluation = self.judging.clips * self._clip
        self._watcher, self._done = watcher, 0
        total = self.evaluation + runs * (spec.budget + (spec.checks - 1) * self.evaluation)
        watcher.begin(spec.name, total, 0)

    def show(self, extra: int, metrics: dict[str, float] | None = None) -> None:
        self._watcher.step(self._done + extra, metrics or {})

    def add(self, units: int) -> None:
        self._done += units
        self.show(0)

    def judge(self, evaluation: Iterator[int], before: int = 0) -> None:
        """Go through an evaluation, `before` units into a run."""
        for clips in evaluation:
            self.show(before + clips * self._clip)


def _make(spec: Spec, wanted: list[Run], watcher: Watcher) -> None:
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
    written |= {"metrics": panel.versions(panel.metrics(spec.evaluate.metrics))}
    config = folder / "config.json"
    if not config.exists() or json.loads(config.read_text(encoding="utf-8")) != written:
        _clear(folder)
        model = parts.build("model", spec.model, device(spec.runtime))
        progress.judge(evaluate.run(Local(model), progress.judging, START, folder, START, first.entry.stage.trains_on))
        write_text(config, json.dumps(written, indent=1))
    progress.add(progress.evaluation)


def _clear(folder: Path) -> None:
    """Remove what an interrupted run has left, and nothing else.

    Raises:
        BadConfig: there is something else in its folder.
    """
    own = {RESULT, "config.json", "metrics.jsonl", "evaluations", "samples"}
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
    """A run under way. Owns its model, its counts and its clock."""

    def __init__(self, each: Run, progress: _Progress) -> None:
        """Clear the folder and build the model and the stage, as the driver would."""
        self.each, self.spec, self.progress = each, each.spec, progress
        _clear(each.folder)
        settings = each.settings
        content = {"hash": _digest(settings), "version": reelign.__version__, "config": settings}
        each.folder.mkdir(exist_ok=True)
        write_text(each.folder / "config.json", json.dumps(content, indent=1))
        for name in ("evaluations", "samples"):
            shutil.copytree(folder_of(self.spec) / "start" / name, each.folder / name)
        self.model: VideoModel = parts.build("model", self.spec.model, device(self.spec.runtime))
        checkpointing = bool(configs.dump(self.spec.model).get("checkpointing"))
        self.counted = Counted(self.model, checkpointing)
        self.runtime = Local(cast(VideoModel, self.counted))
        self.rows = Journal(each.folder / "metrics.jsonl")
        self.now = Check(0, f"evaluations/{START}.json")

    def run(self) -> list[Check]:
        """Train to the end of the budget; returns the checks, which are on the disk then."""
        label = self.each.entry.label
        context = Context(rng.seed_for(self.each.seed, "stage", 0), self.each.folder, label)
        stage: Stage = parts.build("stage", self.each.entry.stage, context)
        with self.runtime.stage(stage.spec) as work:
            checks = self._checks(stage, work)
        text = "".join(json.dumps(asdict(check), ensure_ascii=False) + "\n" for check in checks)
        write_text(self.each.folder / RESULT, text)
        return checks

    def _checks(self, stage: Stage, work: LocalWork) -> list[Check]:
        spec, label = self.spec, self.each.entry.label
        steps, checks, gap = stage.run(work, 0), [self.now], spec.budget / (spec.checks - 1)
        for number in range(1, spec.checks):
            while self.now.units < number * gap and not self.now.stopped:
                self._step(steps)
            if self.now.units >= (number + 1) * gap:
                raise RunStopped(
                    f"an iteration of entry {label!r} takes up to {self.now.units - checks[-1].units:,} forward-units, "
                    f"but checks are {gap:,.0f} apart; raise `budget`, lower `checks`, or make the iteration smaller."
                )
            checks.append(replace(checks[-1], check=number) if checks[-1].stopped else self._check(number, work))
        return checks

    def _step(self, steps: Iterator[Report]) -> None:
        """One iteration; a run that cannot go on stays where it is, unless it never began."""
        began = time.perf_counter()
        try:
            report = next(steps)
        except RunStopped as error:
            if self.now.step == 0:
                raise
            self.now = replace(self.now, stopped=str(error))
            return
        seconds, laps = time.perf_counter() - began, report.metrics
        self.now = replace(
            self.now,
            step=report.step + 1,
            units=self.counted.units,
            seconds=self.now.seconds + seconds,
            rollout_s=self.now.rollout_s + laps["rollout/wall_s"],
            decode_s=self.now.decode_s + laps["decode/wall_s"],
            reward_s=self.now.reward_s + laps["reward/wall_s"],
            update_s=self.now.update_s + laps["update/wall_s"],
        )
        row = {"stage": self.each.entry.label, "index": 0, "step": report.step, "wall_s": seconds}
        self.rows.add({**row, **report.metrics, "bakeoff/units": self.now.units})
        self.progress.show(self._passed(), report.metrics)

    def _passed(self) -> int:
        """Forward-units of this run so far, with its evaluations."""
        return min(self.now.units, self.spec.budget) + self.now.check * self.progress.evaluation

    def _check(self, number: int, work: LocalWork) -> Check:
        """Judge the weights that the stage would leave behind now, and go on with those it trains."""
        if work.broken:
            # Nothing can be sampled with them; the weights that were judged last stand for them.
            return replace(self.now, check=number)
        label = f"check-{number:02d}"
        last = number == self.spec.checks - 1
        judging = self.progress.judging
        if not last:
            judging = replace(judging, config=judging.config.model_copy(update={"videos": 0}))
        with work.averaged():
            trained_on = self.each.entry.stage.trains_on
            evaluation = evaluate.run(Local(self.model), judging, label, self.each.folder, label, trained_on)
            self.progress.judge(evaluation, self._passed())
        self.now = replace(self.now, check=number, evaluation=f"evaluations/{label}.json")
        return self.now
