"""One run under way: every stage from where it stands, saved, judged, and handed on."""

import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property, partial

from reelign import parts
from reelign.core import rng
from reelign.diagnostics import gates
from reelign.driver import resuming, world
from reelign.driver.held import Groups, Held, refuse_broken
from reelign.driver.interrupts import Interrupted
from reelign.driver.recipe import Recipe, all_datasets, digest, labels, shift
from reelign.driver.run_folder import Json, RunFolder
from reelign.driver.state import State
from reelign.driver.watching import Watcher
from reelign.errors import BadCheckpoint, CannotWrite, UserError
from reelign.opened import Datasets
from reelign.protocols import VideoModel
from reelign.runtime.checkpoint import Checkpoint
from reelign.runtime.local import Local
from reelign.runtime.local_work import LocalWork
from reelign.settings import in_run
from reelign.stage import Context, Stage
from reelign.stages import evaluate


class Driver:
    """Owns the position of the run; the folder owns the files, the model and the learner own the weights."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        model: VideoModel,
        watcher: Watcher,
        opened: Datasets,
        accept_changes: bool = False,
    ) -> None:
        """Get ready; `run` finds out where the run stands."""
        self.recipe, self.folder, self.model, self.watcher, self.opened = recipe, folder, model, watcher, opened
        self.labels = labels(recipe)
        self.runtime = Local(model)
        self.held = Held(model, self.runtime)
        self.state = State(stage=0, next=0, recipe=digest(recipe))
        self._accept = accept_changes
        self._resumed: Groups | None = None
        """Tensors of the stage that is taken up again, until it has them."""
        self._wish: list[int] = []

    def run(self, wish: list[int]) -> None:
        """All stages that are not yet done, then the export; saves and stops once `wish` holds anything."""
        self._wish = wish
        self._start()
        if (self.state.stage, self.state.next) == (0, 0):
            self._evaluate("base")
        for index in range(self.state.stage, len(self.labels)):
            self._stage(index)
        self._export()

    def _start(self) -> None:
        """Begin, or go on from the newest checkpoint."""
        taken = resuming.take_up(self.recipe, self.folder, self.held, self.opened, self.watcher, self._accept)
        if taken is not None:
            self.state, self._resumed = taken
        self._see_collected()
        if taken is None:
            self.folder.refuse_remains()
            self.folder.take_over(self.recipe)
            around = world.around(self.recipe, self.model, 0, self.opened)
            self.state = self.state.model_copy(update={"world": around})
            self._save("base", self.held.weights())

    def _see_collected(self) -> None:
        """Where stages will collect lie nobody else's files; what others will read of it is as it was collected."""
        read = any(in_run(config) for _, config in all_datasets(self.recipe, self.state.stage))
        for index, made in self.folder.collected(self.recipe):
            if (index, 0) >= (self.state.stage, self.state.next):
                made.refuse_foreign()
            elif index == self.state.stage:
                made.verify(self.state.next)
            elif read:
                made.verify(made.steps)

    def _stage(self, index: int) -> None:
        """Run one stage from where it stands, judge it, and hand its weights on."""
        label, began, started = self.labels[index], time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
        config = self.recipe.stages[index].within(self.folder.path)
        seed = rng.seed_for(self.recipe.run.seed, "stage", index)
        context = Context(seed, self.folder.path, label, self.folder.id, self.opened)
        stage: Stage = parts.build("stage", config, context)
        about, spent = stage.describe(), self.state.wall_s
        entering, leaving = self._leaving(index - 1), self._leaving(index)
        with self.runtime.stage(stage.spec) as work:
            self._enter(about, stage.steps, work)
            self.watcher.begin(label, stage.steps, self.state.next)
            self._steps(stage, work, entering, began - spent)
        gate = self._leave(index, entering, trains := stage.spec.learner is not None)
        judged = trains and self.recipe.evaluate is not None
        row = {"stage": label, "index": index, "kind": config.name, "steps": stage.steps}
        row |= {"entering": entering, "leaving": leaving, **about}
        row |= {"prompts": 0, "rollouts": 0, "pairs": 0, "clips": 0, **self.state.counts}
        row |= {"note": "; ".join(note for note in (stage.note, *self.state.accepted) if note), "judged": judged}
        row |= {
            "machine": self.state.world.machine,
            "started": started,
            "wall_s": spent + time.perf_counter() - began,
            "gate": gate,
        }
        self.folder.record(row)
        ahead = {"stage": index + 1, "entering": leaving, "world": self.state.world}
        self.state = State(next=0, recipe=self.state.recipe, ledger=tuple(self.folder.rows), **ahead)
        self._save(leaving, self.held.weights())
        self.opened.keep(config for _, config in all_datasets(self.recipe, index + 1))
        self.watcher.say(f"{label}: {gates.said(gate)}")
        if stage.note:
            self.watcher.say(f"{label}: {stage.note}.")
        if self._wish:
            raise Interrupted(f"saved after stage {label}; go on with --resume.")

    def _steps(self, stage: Stage, work: LocalWork, entering: str, began: float) -> None:
        """Run the steps that are left, and save now and then; `began` is when, less what earlier parts have taken."""
        index = self.state.stage
        label, saved, mark = self.labels[index], self.state.next, work.mark()
        try:
            for report in stage.run(work, self.state.next):
                done = report.step + 1
                self.folder.metrics.add({"stage": label, "index": index, "step": report.step, **report.metrics})
                counts = {k: self.state.counts.get(k, 0) + n for k, n in report.counts.items()}
                now = {"next": done, "counts": {**self.state.counts, **counts}}
                self.state = self.state.model_copy(update={**now, "wall_s": time.perf_counter() - began})
                mark = work.mark()
                self.watcher.step(done, report.metrics)
                stop = bool(self._wish)
                # The last step is saved too: the evaluation that follows may be stopped.
                if stop or done % self.recipe.run.save_every == 0 or done == stage.steps:
                    self._save(f"{label}-{done:05d}", work.state(), (entering,))
                    saved = done
                if stop and done < stage.steps:
                    raise Interrupted(f"saved after step {done} of stage {label}; go on with --resume.")
        except Exception as error:
            # What failed has changed nothing, so the steps before it need not be lost.
            if saved < self.state.next and not isinstance(error, CannotWrite) and mark == work.mark():
                with suppress(UserError):
                    self._save(f"{label}-{self.state.next:05d}", work.state(), (entering,))
                    self.watcher.say(f"saved after step {self.state.next} of stage {label}; go on with --resume.")
            raise

    def _enter(self, about: Json, steps: int, work: LocalWork) -> None:
        """Bring a stage under way back, if its rewards are those it began with."""
        then, own = self.state.world, {name: str(use["version"]) for name, use in about["rewards"].items()}
        now = then.model_copy(update={"rewards": own})
        tensors, self._resumed = self._resumed, None
        if tensors is not None and self.state.next:
            where = f"step {self.state.next} of stage {self.labels[self.state.stage]}"
            if self.state.next > steps:
                raise BadCheckpoint(f"the checkpoint stands at {where}, which has only {steps}; start a new run.")
            self.state = resuming.agree(self.state, world.changes(then, now), where, self._accept, self.watcher)
            work.load(tensors, self.state.updates, self.state.adapter_off)
            self._warn_of_lost_entry()
        self.state = self.state.model_copy(update={"world": now})

    def _warn_of_lost_entry(self) -> None:
        """A failed gate brings the weights back that entered the stage: say it now if they are damaged."""
        if self.recipe.stages[self.state.stage].gate is None:
            return
        try:
            self.folder.checkpoints.load(self.state.entering, self.held.fingerprint)
        except BadCheckpoint as error:
            self.watcher.say(
                f"{error} Should the gate fail, the weights that entered the stage cannot be brought back."
            )

    def _leave(self, index: int, entering: str, trains: bool) -> Json:
        """Evaluate the stage's weights and judge them; a failed gate brings the entering weights back."""
        label, rules = self.labels[index], self.recipe.stages[index].gate
        if not trains:
            if self.recipe.stages[index].evaluates:
                self.folder.judged(label)
            return gates.ungated("it trains nothing.")
        self._evaluate(label)
        if rules is None or self.recipe.evaluate is None:
            return gates.ungated("no gate judged it.")
        before = self.folder.evaluation(self.folder.kept_before(index))
        verdict = gates.judge(before, self.folder.evaluation(label), rules)
        if verdict["verdict"] == "failed":
            self.held.bring_back_weights(self.folder.checkpoints.load(entering, self.held.fingerprint))
        return verdict

    @cached_property
    def evaluation(self) -> evaluate.Evaluation | None:
        """The recipe's, with its metrics; they are built for the first one and kept for the others."""
        config = self.recipe.evaluate
        return config and evaluate.prepare(config, self.opened)

    def _evaluate(self, label: str) -> None:
        if self.evaluation is None:
            return
        self.folder.see_it_there()
        trained = frozenset[str]().union(*(stage.trains_on for stage in self.recipe.stages))
        self.watcher.begin(f"evaluate {label} (clips)", self.evaluation.clips, 0)
        for done in evaluate.run(self.runtime, self.evaluation, label, self.folder.path, label, trained):
            self.watcher.step(done, {})
            if self._wish:
                raise Interrupted(f"saved before evaluating {label}; go on with --resume.")
        self.folder.judged(label)

    def _export(self) -> None:
        """Write `final/`, unless it is there."""
        newest = self.folder.checkpoints.peek()
        assert newest is not None
        if self.folder.final.is_of(newest.seal):
            return
        refuse_broken(self.held.weights())
        self.folder.see_it_there()
        told = self.folder.final.write(partial(self.model.export, shift=shift(self.recipe)), newest.seal)
        if told:
            self.watcher.say(told)

    def _leaving(self, index: int) -> str:
        """Name of the checkpoint that a stage leaves behind."""
        return "base" if index < 0 else f"{self.labels[index]}-end"

    def _save(self, name: str, tensors: Groups, needs: tuple[str, ...] = ()) -> None:
        """Seal where the run stands; all rows that it seals are on the disk before.

        Raises:
            RunStopped: a weight is not finite; the checkpoints before stay as they are.
        """
        refuse_broken(tensors)
        self.folder.see_it_there()
        work = self.runtime.work
        self.folder.ledger.seal()
        written = {"metrics": self.folder.metrics.seal(), "ledger": tuple(self.folder.rows)}
        written |= {"evaluations": dict(self.folder.evaluations), "updates": work.updates if work else 0}
        written |= {"adapter_off": self.model.reference.adapter_off}
        self.folder.settle()
        self.state = self.state.model_copy(update=written)
        self.folder.checkpoints.save(name, self.held.fingerprint, Checkpoint(tensors, self.state.model_dump(), needs))
