"""One run under way: every stage from where it stands, saved, judged, and handed on."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from reelign import parts, records
from reelign.core import rng
from reelign.diagnostics import gates
from reelign.driver import resuming, world
from reelign.driver.held import Held, refuse_broken
from reelign.driver.interrupts import Interrupted
from reelign.driver.judging import Judging, Over
from reelign.driver.pace import Look, Pace
from reelign.driver.recipe import Recipe, all_datasets, digest, labels, shift
from reelign.driver.run_folder import Json, RunFolder
from reelign.driver.state import State
from reelign.driver.watching import Company
from reelign.errors import BadCheckpoint, CannotWrite, RunStopped, UserError
from reelign.events import Event
from reelign.opened import Datasets
from reelign.protocols import VideoModel
from reelign.runtime.checkpoint import Checkpoint
from reelign.runtime.local import Local
from reelign.runtime.local_work import LocalWork
from reelign.runtime.meter import Meter
from reelign.runtime.work import Groups
from reelign.stage import Context, Report, Stage


class Driver:
    """Owns the position of the run; the folder owns the files, the model and the learner own the weights."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        model: VideoModel,
        company: Company,
        opened: Datasets,
        pace: Pace,
        accept_changes: bool = False,
    ) -> None:
        self.recipe, self.folder, self.model, self.company, self.opened = recipe, folder, model, company, opened
        self.pace = pace
        self.labels = labels(recipe)
        self.runtime = Local(model)
        self.held = Held(model, self.runtime)
        self.judging = Judging(recipe, folder, self.runtime, self.held, opened, company, pace)
        self.meter = Meter(*model.experts.values())
        self.state = State(stage=0, next=0, recipe=digest(recipe))
        self._accept = accept_changes
        self._resumed: Groups | None = None
        """Tensors of the stage that is taken up again, until it has them."""

    def run(self, wish: Sequence[int] = ()) -> None:
        """All stages that are not yet done, then the export; saves and stops once `wish` holds anything."""
        self.judging.wish = wish
        self._start()
        try:
            if (self.state.stage, self.state.next) == (0, 0):
                event = Event(time.time(), "phase", "base")
                self.judging.on_the_way(self.pace.look(event), event)
            for index in range(self.state.stage, len(self.labels)):
                self._stage(index)
        except Over:
            return
        self._export()

    def _start(self) -> None:
        """Begin, or go on from the newest checkpoint."""
        taken = resuming.take_up(self.recipe, self.folder, self.held, self.opened, self.company, self._accept)
        if taken is not None:
            self.state, self._resumed = taken
        resuming.see_collected(self.recipe, self.folder, self.state)
        if taken is None:
            self.folder.refuse_remains()
            self.folder.take_over(self.recipe)
            around = world.around(self.recipe, self.model, 0, self.opened)
            self.state = self.state.model_copy(update={"world": around})
            self._save("base", self.held.weights())

    def _stage(self, index: int) -> None:
        """Run one stage from where it stands, judge it, and hand its weights on."""
        label, started = self.labels[index], datetime.now(UTC).isoformat(timespec="seconds")
        began, spent = time.perf_counter(), self.state.wall_s
        config = self.recipe.stages[index].within(self.folder.path)
        seed = rng.seed_for(self.recipe.run.seed, "stage", index)
        context = Context(seed, self.folder.path, label, self.folder.id, self.opened)
        stage: Stage = parts.build("stage", config, context)
        about, trains = config.describe(), stage.spec.learner is not None
        with self.runtime.stage(stage.spec) as work:
            self._enter(about, stage.steps, work)
            begun = {"index": index, "kind": config.name, **about}
            self.company.send("stage", label, self.state.next, stage.steps, begun)
            self._train(stage, work, index, lambda: spent + time.perf_counter() - began)
        judged = trains and self.recipe.evaluate is not None
        gate = self._leave(index, trains)
        self.company.send("gate", label, stage.steps, stage.steps, gate.model_dump())
        row = {"stage": label, "index": index, "kind": config.name, "steps": stage.steps, **about, **self.state.counts}
        row |= {"entering": self._leaving(index - 1), "leaving": self._leaving(index), "best": self.held.best}
        row |= {"note": "; ".join(note for note in (stage.note, *self.state.accepted) if note), "judged": judged}
        row |= {"machine": self.state.world.machine, "started": started, "gate": gate}
        row |= {"wall_s": spent + time.perf_counter() - began}
        self.folder.record(records.Stage.model_validate(row))
        ahead = {"stage": index + 1, "entering": self._leaving(index), "world": self.state.world}
        self.state = State(next=0, recipe=self.state.recipe, ledger=tuple(self.folder.rows), **ahead)
        self._save(self._leaving(index), self.held.weights())
        self.opened.keep(config for _, config in all_datasets(self.recipe, index + 1))
        self.company.say(f"{label}: {gates.said(gate)}")
        if stage.note:
            self.company.say(f"{label}: {stage.note}.")
        if self.judging.wish:
            raise Interrupted(f"saved after stage {label}; go on with --resume.")

    def _train(self, stage: Stage, work: LocalWork, index: int, clock: Callable[[], float]) -> None:
        """All steps that are not yet done, each written down, saved now and then, and judged where that is due."""
        label = self.labels[index]
        saved, mark = self.state.next, work.mark()
        try:
            self.judging.again(Event(time.time(), "step", label, self.state.next, stage.steps))
            trains, reports = stage.spec.learner is not None, stage.run(work, self.state.next)
            for report, seconds, units in self._measured(reports, trains):
                event = self._note(report, index, stage.steps, seconds, units)
                self.state = self.state.model_copy(update={"wall_s": clock()})
                mark, done, look = work.mark(), report.step + 1, self.pace.look(event)
                # The last step is saved too: the evaluation that follows may be stopped.
                due = done % self.recipe.run.save_every == 0 or done == stage.steps
                if self.judging.wish or due or look:
                    self._save(f"{label}-{done:05d}", self.held.all(), (self._leaving(index - 1),))
                    saved = done
                if self.judging.wish and done < stage.steps:
                    raise Interrupted(f"saved after step {done} of stage {label}; go on with --resume.")
                self.judging.on_the_way(look, event)
        except Over:
            raise
        except Exception as error:
            # What failed has changed nothing, so the steps before it need not be lost.
            if saved < self.state.next and not isinstance(error, CannotWrite) and mark == work.mark():
                with suppress(UserError):
                    self._save(f"{label}-{self.state.next:05d}", self.held.all(), (self._leaving(index - 1),))
                    self.company.say(f"saved after step {self.state.next} of stage {label}; go on with --resume.")
            if isinstance(error, RunStopped):
                said = {"phase": "failed", "text": str(error), "broken": work.broken}
                event = Event(time.time(), "phase", label, self.state.next, stage.steps, said)
                self.judging.on_the_way(self.pace.look(event), event)
            raise

    def _measured(self, reports: Iterator[Report], trains: bool) -> Iterator[tuple[Report, float, int]]:
        """Each report with the seconds and the forward-units that it took."""
        while True:
            began, before = time.perf_counter(), self.meter.units
            report = next(reports, None)
            if report is None:
                return
            yield report, time.perf_counter() - began, self.meter.units - before if trains else 0

    def _note(self, report: Report, index: int, steps: int, seconds: float, units: int) -> Event:
        """Write a step down and tell of it."""
        label, done, before = self.labels[index], report.step + 1, self.state.counts
        counts = {**before, **{k: before.get(k, 0) + n for k, n in {**report.counts, "forwards": units}.items()}}
        row = {"stage": label, "index": index, "step": report.step, "wall_s": seconds, "forwards": counts["forwards"]}
        self.folder.metrics.add(records.Step.model_validate({**row, "metrics": report.metrics}).dump())
        for sample in report.samples:
            placed = sample.model_copy(update={"stage": label, "index": index, "step": report.step})
            self.folder.samples.add(placed.dump())
            self.company.send("sample", label, done, steps, placed.model_dump())
        self.state = self.state.model_copy(update={"next": done, "counts": counts})
        data = {**report.metrics, "wall_s": seconds, "forwards": counts["forwards"]}
        return self.judging.told(self.company.send("step", label, done, steps, data))

    def _enter(self, about: Json, steps: int, work: LocalWork) -> None:
        """Bring a stage under way back, if its rewards are those it began with."""
        self.held.begin()
        then, own = self.state.world, {name: str(use["version"]) for name, use in about["rewards"].items()}
        now = then.model_copy(update={"rewards": own})
        tensors, self._resumed = self._resumed, None
        if tensors is not None and self.state.next:
            where = f"step {self.state.next} of stage {self.labels[self.state.stage]}"
            if self.state.next > steps:
                raise BadCheckpoint(f"the checkpoint stands at {where}, which has only {steps}; start a new run.")
            self.state = resuming.agree(self.state, world.changes(then, now), where, self._accept, self.company)
            work.load(tensors, self.state.updates, self.state.adapter_off)
            self.held.begin(self.state.best, tensors)
            if self.recipe.stages[self.state.stage].gate:
                resuming.warn_of_lost_entry(self.folder, self.held, self.state, self.company)
        self.state = self.state.model_copy(update={"world": now})

    def _leave(self, index: int, trains: bool) -> records.Gate:
        """Evaluate the stage's weights and judge them; a failed gate brings the entering weights back."""
        label, rules = self.labels[index], self.recipe.stages[index].gate
        if not trains:
            for key in self.recipe.stages[index].files(label):
                self.folder.judged(key)
            return gates.ungated("it trains nothing.")
        self.held.take_best()
        if self.recipe.evaluate is not None:
            done = self.state.next
            self.judging.evaluate(Look(label, whole=True), label, done, done)
        if rules is None or self.recipe.evaluate is None:
            return gates.ungated("no gate judged it.")
        entered = self.folder.kept_before(index)
        before, after, base = map(self.judging.ends, (entered, label, "base"))
        free = any(row["stage"] == entered and row["gate"]["verdict"] == "ungated" for row in self.folder.rows)
        gate = gates.judge(before, after, rules, base, entered if free else "")
        if gate.verdict == "failed":
            entering = self.folder.checkpoints.load(self._leaving(index - 1), self.held.fingerprint)
            self.held.bring_back_weights(entering)
        return gate

    def _export(self) -> None:
        """Write `final/`, unless it is there."""
        newest = self.folder.checkpoints.peek()
        assert newest is not None
        if self.folder.final.is_of(newest.seal):
            return
        refuse_broken(self.held.weights())
        self.folder.see_it_there()
        self.company.send("phase", data={"phase": "exporting"})
        told = self.folder.final.write(partial(self.model.export, shift=shift(self.recipe)), newest.seal)
        if told:
            self.company.say(told)

    @property
    def _label(self) -> str:
        """Of the running stage, or of what is before the first or behind the last."""
        if (self.state.stage, self.state.next) == (0, 0):
            return "base"
        return self.labels[min(self.state.stage, len(self.labels) - 1)]

    def _leaving(self, index: int) -> str:
        """Name of the checkpoint that a stage leaves behind."""
        return "base" if index < 0 else f"{self.labels[index]}-end"

    def _save(self, name: str, tensors: Groups, needs: tuple[str, ...] = ()) -> None:
        """Seal where the run stands; all rows that it seals are on the disk before.

        Raises:
            RunStopped: a weight is not finite; the checkpoints before stay as they are.
        """
        if not self.pace.keeps:
            return
        refuse_broken(tensors)
        self.folder.see_it_there()
        self.company.send("phase", self._label, data={"phase": "saving"})
        work = self.runtime.work
        self.folder.ledger.seal()
        written = {"metrics": self.folder.metrics.seal(), "samples": self.folder.samples.seal()}
        written |= {"ledger": tuple(self.folder.rows), "evaluations": dict(self.folder.evaluations)}
        written |= {"updates": work.updates if work else 0, "best": self.held.best if self.state.next else None}
        written |= {"adapter_off": self.model.reference.adapter_off}
        self.folder.sync()
        self.state = self.state.model_copy(update=written)
        self.folder.checkpoints.save(name, self.held.fingerprint, Checkpoint(tensors, self.state.model_dump(), needs))
        self.company.send("saved", self._label, data={"checkpoint": name})
