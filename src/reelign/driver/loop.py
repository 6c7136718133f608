"""One run under way: every stage from where it stands, saved, judged, and handed on."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

from reelign import parts
from reelign.core import rng
from reelign.diagnostics import gates
from reelign.driver.recipe import Recipe, in_run, labels
from reelign.driver.run_folder import Json, RunFolder
from reelign.errors import BadCheckpoint
from reelign.models._weights import load_trainable, trainable
from reelign.protocols import VideoModel
from reelign.runtime import checkpoint
from reelign.runtime.checkpoint import Checkpoint
from reelign.runtime.local import Local
from reelign.stages import evaluate
from reelign.stages._context import Context, Stage


@runtime_checkable
class Watcher(Protocol):
    """Who shows a run's progress."""

    def begin(self, label: str, total: int, done: int) -> None:
        """A stage or an evaluation starts; `done` of `total` steps are already there."""
        ...

    def step(self, done: int, metrics: dict[str, float]) -> None:
        """A step is finished."""
        ...

    def say(self, sentence: str) -> None:
        """Something worth a line."""
        ...


class Interrupted(Exception):
    """Ctrl-C: the run has been saved and can be resumed."""


@contextmanager
def _saving_on_interrupt() -> Iterator[list[bool]]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; a second one stops at once."""
    wish: list[bool] = []

    def handler(number: int, frame: object) -> None:
        if wish:
            raise KeyboardInterrupt
        wish.append(True)

    previous = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


class Driver:
    """Owns the position of the run; the folder owns the files, the model and the learner own the weights."""

    def __init__(self, recipe: Recipe, folder: RunFolder, model: VideoModel, watcher: Watcher) -> None:
        """Get ready; `run` finds out where the run stands."""
        self.recipe, self.folder, self.model, self.watcher = recipe, folder, model, watcher
        self.labels = labels(recipe)
        self.runtime = Local(model)
        self.fingerprint = checkpoint.fingerprint(trainable(model.network))
        self._wish: list[bool] = []

    def run(self) -> None:
        """All stages that are not yet done, then the export."""
        where = checkpoint.latest(self.folder.checkpoints)
        if where is None:
            position = {"stage": 0, "next": 0, "entering": "base", "updates": 0}
            self._save("base", position, {"learner": self._weights()})
            state = Checkpoint({}, position)
        else:
            state = checkpoint.load(where, self.fingerprint)
            load_trainable(self.model.network, _weights_in(state))
        stage, step = state.position["stage"], state.position["next"]
        self.folder.forget_after(stage, step)
        with _saving_on_interrupt() as self._wish:
            if (stage, step) == (0, 0):
                self._evaluate("base")
            for index in range(stage, len(self.labels)):
                self._stage(index, state if index == stage and step > 0 else None)
        self.folder.export(self.model.export)

    def _stage(self, index: int, state: Checkpoint | None) -> None:
        """Run one stage, from the middle if there is a state, judge it, and hand its weights on."""
        label, began, started = self.labels[index], time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
        config = in_run(self.recipe.stages[index], self.folder.path)
        seed = rng.seed_for(self.recipe.run.seed, "stage", index)
        stage: Stage = parts.build("stage", config, Context(self.runtime, seed, self.folder.path, label))
        first, counts, spent = 0, {}, 0.0
        entering, leaving = self._leaving(index - 1), self._leaving(index)
        if state is not None:
            first, counts, spent = (state.position[key] for key in ("next", "counts", "wall_s"))
            self._restore(state)
        self.watcher.begin(label, stage.steps, first)
        for report in stage.run(first):
            done = report.step + 1
            counts = {k: counts.get(k, 0) + report.counts.get(k, 0) for k in {**counts, **report.counts}}
            self.folder.log({"stage": label, "index": index, "step": report.step, **report.metrics})
            self.watcher.step(done, report.metrics)
            stop = bool(self._wish)
            # The last step is saved too: the evaluation that follows may be stopped.
            if stop or done % self.recipe.run.save_every == 0 or done == stage.steps:
                position = {"stage": index, "next": done, "entering": entering, "counts": counts}
                position["wall_s"] = spent + time.perf_counter() - began
                self._save(f"{label}-{done:05d}", position, self._state(), keep=(entering,))
            if stop and done < stage.steps:
                raise Interrupted(f"saved after step {done} of stage {label}; go on with --resume.")
        gate = self._leave(index, entering)
        row = {"stage": label, "index": index, "kind": config.name, "steps": stage.steps}
        row |= {"entering": entering, "leaving": leaving, **stage.describe()}
        row |= {"prompts": 0, "rollouts": 0, "pairs": 0, "clips": 0, **counts, "note": stage.note}
        row |= {"started": started, "wall_s": spent + time.perf_counter() - began, "gate": gate}
        self.folder.record(row)
        after = {"stage": index + 1, "next": 0, "entering": leaving, "updates": 0}
        self._save(leaving, after, {"learner": self._weights()})
        self.watcher.say(f"{label}: {gates.said(gate)}")
        if stage.note:
            self.watcher.say(f"{label}: {stage.note}.")
        if self._wish:
            raise Interrupted(f"saved after stage {label}; go on with --resume.")

    def _leave(self, index: int, entering: str) -> Json:
        """Settle the stage's weights, evaluate and judge them; a failed gate brings the entering weights back."""
        if self.runtime.learner is None:
            return gates.ungated("it trains nothing.")
        self.runtime.end_stage()
        label, rules = self.labels[index], self.recipe.stages[index].gate
        self._evaluate(label)
        if rules is None or self.recipe.evaluate is None:
            return gates.ungated("no gate judged it.")
        before = self.folder.evaluation(self.folder.kept_before(index))
        verdict = gates.judge(before, self.folder.evaluation(label), rules)
        if verdict["verdict"] == "failed":
            state = checkpoint.load(self.folder.checkpoints / entering, self.fingerprint)
            load_trainable(self.model.network, _weights_in(state))
        return verdict

    def _evaluate(self, label: str) -> None:
        config = self.recipe.evaluate
        if config is None:
            return
        full = {w.reward.name for s in self.recipe.stages for w in getattr(s, "rewards", ())}
        trained = frozenset(full | {name.partition(":")[0].rpartition(".")[2] for name in full})
        self.watcher.begin(f"evaluate {label}", 100, 0)
        for share in evaluate.run(self.model, config, label, self.folder.path, label, trained):
            self.watcher.step(round(100 * share), {})
            if self._wish:
                raise Interrupted(f"saved before evaluating {label}; go on with --resume.")

    def _leaving(self, index: int) -> str:
        """Name of the checkpoint that a stage leaves behind."""
        return "base" if index < 0 else f"{self.labels[index]}-end"

    def _weights(self) -> dict[str, Any]:
        return {f"weights/{n}": p.detach() for n, p in trainable(self.model.network).items()}

    def _state(self) -> dict[str, dict[str, Any]]:
        learner = self.runtime.learner
        return {
            "learner": learner.state() if learner else self._weights(),
            "reference": self.model.reference_weights.state(),
            "method": self.runtime.memory.state() if self.runtime.memory else {},
        }

    def _save(self, name: str, position: Json, tensors: dict[str, dict[str, Any]], keep: tuple[str, ...] = ()) -> None:
        learner = self.runtime.learner
        full = {
            "updates": learner.updates if learner else 0,
            "adapter_off": self.model.reference_weights.adapter_off,
            **position,
        }
        checkpoint.save(self.folder.checkpoints, name, self.fingerprint, Checkpoint(tensors, full), keep)

    def _restore(self, state: Checkpoint) -> None:
        """Bring the learner and the reference of a stage under way back."""
        if self.runtime.learner is not None:
            own = {key: value.to(self.model.device) for key, value in state.tensors["learner"].items()}
            self.runtime.learner.load(own, state.position["updates"])
        if self.model.reference_weights.roles:
            self.model.reference_weights.load(state.tensors.get("reference", {}), state.position["adapter_off"])
        if self.runtime.memory:
            self.runtime.memory.load(state.tensors.get("method", {}))


def _weights_in(state: Checkpoint) -> dict[str, Any]:
    """The policy weights of a checkpoint."""
    found = {
        key.removeprefix("weights/"): v
        for key, v in state.tensors.get("learner", {}).items()
        if key.startswith("weights/")
    }
    if not found:
        raise BadCheckpoint("the checkpoint holds no weights; use an older one.")
    return found
