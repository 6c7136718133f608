"""The runs of a bake-off: each entry with each seed, to the same budget, judged at the same points on the way.

    runs/<name>/
      start/                 the evaluation that all runs start from
      <label>-seed<n>/       a run: config.json, metrics.jsonl, evaluations/, samples/ as in any run folder, and
        result.jsonl         a row a check; it appears whole when the run is finished
      bakeoff.json, bakeoff.html

A finished run is never made again. One that was interrupted starts again from its beginning: runs take minutes, and a
bake-off keeps no checkpoints.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import reelign
from reelign import panel, parts
from reelign.bakeoff.one import START, One, Run, Spending, clear, folder_of
from reelign.bakeoff.spec import Spec, differences
from reelign.driver.run_folder import RunFolder
from reelign.errors import BadConfig
from reelign.events import Progress
from reelign.files import sweep, write_text
from reelign.records import Check
from reelign.runtime.local import Local, device
from reelign.stages import evaluate


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
        versions = panel.versions(panel.metrics(spec.evaluate.metrics))
        for each in (each for each in runs if each.finished):
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
    judged = json.loads((each.folder / "evaluations" / f"{START}.json").read_text(encoding="utf-8"))["measures"]
    for name, version in now.items():
        then = judged[name].get("version", version)
        if then != version:
            raise BadConfig(
                f"{str(each.folder)!r} was judged by another version of what measures {name} ({then} then, {version} "
                "now); choose another `name`, or remove that folder."
            )


def _make(spec: Spec, wanted: list[Run], watcher: Progress) -> None:
    progress = Spending(spec, len(wanted), watcher)
    _start(spec, wanted[0], progress)
    for each in wanted:
        checks = One(each, progress).run()
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


def _start(spec: Spec, first: Run, progress: Spending) -> None:
    """Judge the weights that all runs start from, once: same weights, prompts and noise give the same clips."""
    folder = folder_of(spec) / "start"
    settings = {key: first.settings[key] for key in ("model", "evaluate", "runtime")}
    versions = panel.versions(panel.metrics(spec.evaluate.metrics))
    written = {"version": reelign.__version__, "config": settings, "metrics": versions}
    config = folder / "config.json"
    if not config.exists() or json.loads(config.read_text(encoding="utf-8")) != written:
        clear(folder)
        model = parts.build("model", spec.model, device(spec.runtime))
        trained = first.entry.stage.trains_on
        for clips in evaluate.run(Local(model), progress.judging, START, folder, START, trained):
            progress.show(clips * progress.clip)
        write_text(config, json.dumps(written, indent=1))
    progress.add(progress.evaluation)
