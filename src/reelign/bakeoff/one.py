"""One run of a bake-off: what it is of, where it lies, and how it goes while the driver makes it."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelign import config as configs
from reelign import driver
from reelign.bakeoff.spec import Entry, Spec, recipe
from reelign.driver import Look
from reelign.errors import BadConfig, RunStopped
from reelign.events import Event, Progress
from reelign.files import remove, write_text, writing
from reelign.records import Check
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


class Spending:
    """What has been computed and what is still to come, in forward-units."""

    def __init__(self, spec: Spec, runs: int, watcher: Progress) -> None:
        """Begin with nothing of so many runs."""
        sampler = spec.evaluate.samplers[0]
        self.clip = sampler.steps * (1 if sampler.guidance == 1.0 else 2)
        self.judging = evaluate.prepare(spec.evaluate)
        self.evaluation = self.judging.clips * self.clip
        self._watcher, self._done = watcher, 0
        total = self.evaluation + runs * (spec.budget + (spec.checks - 1) * self.evaluation)
        watcher.begin(spec.name, total, 0)

    def show(self, extra: int, metrics: Mapping[str, float] | None = None) -> None:
        """So much more than the finished runs have spent."""
        self._watcher.step(self._done + extra, metrics or {})

    def add(self, units: int) -> None:
        """A part of the whole is finished."""
        self._done += units
        self.show(0)


def clear(folder: Path) -> None:
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


class One:
    """A run under way: counts what the driver tells of it, has it judged at equal parts of the budget, and ends it."""

    keeps = False

    def __init__(self, each: Run, progress: Spending) -> None:
        """Begin where all runs do."""
        self.each, self.spec, self.progress = each, each.spec, progress
        self.checks = [Check(check=0, evaluation=f"evaluations/{START}.json")]
        self.now = self.checks[0]
        """Where it stands."""

    def run(self) -> list[Check]:
        """Train to the end of the budget; returns the checks, which are on the disk then."""
        clear(self.each.folder)
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
        return Look(f"check-{len(self.checks):02d}", whole=len(self.checks) == self.spec.checks - 1)

    def _passed(self, units: int) -> int:
        """Forward-units of this run so far, with its evaluations."""
        return min(units, self.spec.budget) + (len(self.checks) - 1) * self.progress.evaluation
