"""The driver: runs a recipe's stages in a row, and decides what happens between updates - save, judge, gate, resume.

A run folder holds config.json, ledger.jsonl, metrics.jsonl, evaluations/, samples/, checkpoints/ and at the end final/.
"""

import fcntl
import json
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

import reelign
from reelign import config as configs
from reelign import parts
from reelign.batches import Clips, Pairs
from reelign.core import rng
from reelign.diagnostics import gates
from reelign.errors import BadCheckpoint, BadConfig
from reelign.models._weights import load_trainable, trainable
from reelign.parts import AnyModel
from reelign.protocols import Dataset, VideoModel
from reelign.runtime import checkpoint
from reelign.runtime.checkpoint import Checkpoint, write_text
from reelign.runtime.local import Local, Panel, RuntimeConfig, device
from reelign.stages import evaluate, offline, online
from reelign.stages._context import AnyStage, Context, Report, Stage, StageConfig
from reelign.stages.evaluate import Config as EvaluateConfig

Json = dict[str, Any]


class RunConfig(BaseModel):
    """The run as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    """Folder of the run, below `root`."""
    seed: int = 0
    root: str = "runs"
    save_every: int = Field(default=25, ge=1)
    """Steps between two checkpoints."""


class Recipe(BaseModel):
    """A whole run: a model, the stages it goes through, and how it is judged between them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: RunConfig
    model: AnyModel
    stages: tuple[AnyStage, ...] = Field(min_length=1)
    evaluate: EvaluateConfig | None = None
    """Held-out evaluation before the first stage and after every stage that trains; gates need it."""
    runtime: RuntimeConfig = RuntimeConfig()


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


def labels(recipe: Recipe) -> list[str]:
    """The stages' names, made unique."""
    names: list[str] = []
    for stage in recipe.stages:
        base = stage.label or (stage.method.name if isinstance(stage, offline.Config | online.Config) else stage.name)
        name, n = base, 2
        while name in (*names, "base"):
            name, n = f"{base}-{n}", n + 1
        names.append(name)
    return names


def check(recipe: Recipe) -> None:
    """Refuse what can be known to fail before any compute.

    That is: no model there, missing or unreadable data, a dataset that cannot make what the stage needs or enough of
    it, rewards and metrics that cannot be built, gates without evaluation or with measures that nothing measures.

    Raises:
        UserError: one sentence.
    """
    parts.find("model", recipe.model.name).check(recipe.model)
    measured = _measures(recipe)
    for index, stage in enumerate(recipe.stages):
        _check_data(index, stage)
        Panel.build(getattr(stage, "rewards", ()))
        if stage.gate and measured is None:
            raise BadConfig(
                f"stages.{index}.gate: gates compare evaluations, but the recipe has no `evaluate`; "
                "add it or drop the gate."
            )
        for name in (*stage.gate.targets, *stage.gate.guards) if stage.gate else ():
            if name not in (measured or ()):
                raise BadConfig(
                    f"stages.{index}.gate: no metric of `evaluate` measures {name!r}; "
                    f"measured: {', '.join(sorted(measured or ()))}."
                )


def _measures(recipe: Recipe) -> set[str] | None:
    """Names of all that the evaluation measures, after reading its prompts."""
    if recipe.evaluate is None:
        return None
    evaluate.prompts_of(recipe.evaluate)
    return {name for m in recipe.evaluate.metrics for name in parts.build("metric", m).higher_is_better}


def _check_data(index: int, stage: StageConfig) -> None:
    """Open the stage's dataset, unless a stage before it writes it, and see that it can make what the stage draws."""
    config = getattr(stage, "dataset", None)
    if config is None or "{run}" in json.dumps(configs.dump(config)):
        return
    dataset: Dataset = parts.build("dataset", config)
    needs = "prompts"
    if isinstance(stage, offline.Config):
        needs = {Clips: "clips", Pairs: "pairs"}[parts.build("method", stage.method).consumes]
    if needs not in dataset.gives:
        raise BadConfig(
            f"stages.{index}.dataset: {config.name} gives {' and '.join(sorted(dataset.gives))}, "
            f"but the stage needs {needs}."
        )
    if isinstance(stage, online.Config):
        dataset.prompts(stage.prompts, stage.group, 0)


def run(recipe: Recipe, watcher: Watcher, resume: bool = False) -> Path:
    """Run a recipe to its end; returns the run folder.

    Raises:
        UserError: the input was wrong or the run had to stop; the last checkpoint is intact.
        Interrupted: Ctrl-C; the state has been saved.
    """
    folder = Path(recipe.run.root) / recipe.run.name
    check(recipe)
    _prepare(folder, recipe, resume)
    with _locked(folder):
        checkpoint.sweep(folder)
        model: VideoModel = parts.build("model", recipe.model, device(recipe.runtime))
        return Driver(recipe, folder, model, watcher).run()


def _prepare(folder: Path, recipe: Recipe, resume: bool) -> None:
    path = folder / "config.json"
    if path.exists() and not resume:
        raise BadConfig(
            f"{str(folder)!r} already holds a run; go on with --resume, or choose another name with --set run.name=...."
        )
    digest = configs.digest(recipe)
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["hash"] != digest:
            change = _first_change(before["config"], configs.dump(recipe))
            raise BadConfig(f"{str(folder)!r} was started with other settings ({change}); resume with the same recipe.")
        return
    if resume:
        raise BadConfig(f"{str(folder)!r} holds no run to resume; start it without --resume.")
    folder.mkdir(parents=True, exist_ok=True)
    content = {"hash": digest, "version": reelign.__version__, "config": configs.dump(recipe)}
    write_text(path, json.dumps(content, indent=1))


def _first_change(old: Any, new: Any, path: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(key, old.get(key), new.get(key)) for key in sorted({*old, *new})]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        return f"{path}: {old!r} then, {new!r} now"
    return next((_first_change(a, b, f"{path}.{key}".strip(".")) for key, a, b in pairs if a != b), path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the run folder: two runs in one folder are impossible, and a killed run leaves no stale lock."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadConfig(
                f"another process is running in {str(folder)!r}; wait for it or choose another run.name."
            ) from error
        yield


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
    """One run under way. Owns the run folder's files; the model and the learner own the weights."""

    def __init__(self, recipe: Recipe, folder: Path, model: VideoModel, watcher: Watcher) -> None:
        """Find out where the run stands."""
        self.recipe, self.folder, self.model, self.watcher = recipe, folder, model, watcher
        self.labels = labels(recipe)
        self.runtime = Local(model)
        self.checkpoints = folder / "checkpoints"
        self.fingerprint = checkpoint.fingerprint(trainable(model.network))
        self.metrics = folder / "metrics.jsonl"
        self.ledger = folder / "ledger.jsonl"
        self._wish: list[bool] = []

    def run(self) -> Path:
        """All stages that are not yet done, then the export."""
        where = checkpoint.latest(self.checkpoints)
        state = checkpoint.load(where, self.fingerprint) if where else None
        if state is None:
            self._save("base", {"stage": 0, "next": 0, "entering": "base", "updates": 0}, {"learner": self._weights()})
            state = Checkpoint({}, {"stage": 0, "next": 0, "entering": "base", "updates": 0})
        else:
            load_trainable(self.model.network, _weights_in(state))
        self._forget_after(state.position)
        with _saving_on_interrupt() as self._wish:
            if state.position["stage"] == 0 and state.position["next"] == 0:
                self._evaluate("base", "base")
            for index in range(state.position["stage"], len(self.recipe.stages)):
                self._stage(index, state if state.position["stage"] == index else None)
        self._export()
        return self.folder

    def _export(self) -> None:
        """Write the final model under a temporary name, then rename it: a half-written one is never called final."""
        final = self.folder / "final"
        temporary = self.folder / f".final.tmp-{uuid.uuid4().hex[:8]}"
        try:
            self.model.export(temporary)
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _stage(self, index: int, state: Checkpoint | None) -> None:
        """Run one stage from where it stands, judge it, and hand its weights on."""
        label, began, started = self.labels[index], time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
        seed = rng.seed_for(self.recipe.run.seed, "stage", index)
        config = _with_folder(self.recipe.stages[index], self.folder)
        stage: Stage = parts.build("stage", config, Context(self.runtime, seed, self.folder, label))
        first = 0
        entering, counts, spent = self._entering(index), {}, 0.0
        if state is not None and state.position["next"] > 0:
            first, entering = state.position["next"], state.position["entering"]
            counts, spent = dict(state.position["counts"]), state.position["wall_s"]
            self._restore(state)
        self.watcher.begin(label, stage.steps, first)
        for report in stage.run(first):
            done = report.step + 1
            counts = {k: counts.get(k, 0) + report.counts.get(k, 0) for k in {**counts, **report.counts}}
            self._log(label, index, report)
            self.watcher.step(done, report.metrics)
            stop = bool(self._wish)
            # The last step is saved too: the evaluation that follows may be stopped.
            if stop or done % self.recipe.run.save_every == 0 or done == stage.steps:
                position = {
                    "stage": index,
                    "next": done,
                    "entering": entering,
                    "counts": counts,
                    "wall_s": spent + time.perf_counter() - began,
                }
                self._save(f"{label}-{done:05d}", position, self._state(), keep=(entering,))
            if stop and done < stage.steps:
                raise Interrupted(f"saved after step {done} of stage {label}; go on with --resume.")
        gate = self._leave(index, stage, entering)
        row = {
            "stage": label,
            "index": index,
            "kind": config.name,
            "steps": stage.steps,
            "entering": entering,
            "leaving": self._leaving(index),
        }
        row |= {**stage.describe(), "prompts": 0, "rollouts": 0, "pairs": 0, "clips": 0, **counts, "note": stage.note}
        row |= {"started": started, "wall_s": spent + time.perf_counter() - began, "gate": gate}
        self._append(self.ledger, row)
        after = {"stage": index + 1, "next": 0, "entering": self._leaving(index), "updates": 0}
        self._save(self._leaving(index), after, {"learner": self._weights()})
        self.watcher.say(f"{label}: {gate['verdict']}; {gate['sentence']}")
        if self._wish:
            raise Interrupted(f"saved after stage {label}; go on with --resume.")

    def _leave(self, index: int, stage: Stage, entering: str) -> Json:
        """Settle the stage's weights, evaluate and judge them; a failed gate brings the entering weights back."""
        config, label = self.recipe.stages[index], self.labels[index]
        if self.runtime.learner is None:
            return gates.skipped("this stage trains nothing.")
        self.runtime.learner.settle()
        self.runtime.learner = None
        self._evaluate(label, label)
        if config.gate is None or self.recipe.evaluate is None:
            return gates.skipped("this stage has no gate.")
        verdict = gates.judge(self._evaluation(self._judged(index)), self._evaluation(label), config.gate)
        if verdict["verdict"] == "failed":
            load_trainable(
                self.model.network, _weights_in(checkpoint.load(self.checkpoints / entering, self.fingerprint))
            )
        return verdict

    def _judged(self, index: int) -> str:
        """Label of the evaluation of the weights that entered a stage: that of the last gate which let weights pass."""
        rows = (
            [json.loads(line) for line in self.ledger.read_text(encoding="utf-8").splitlines()]
            if self.ledger.exists()
            else []
        )
        kept = [r["stage"] for r in rows if r["index"] < index and r["gate"]["verdict"] != "failed"]
        kept = [name for name in kept if (self.folder / "evaluations" / f"{name}.json").exists()]
        return kept[-1] if kept else "base"

    def _evaluation(self, label: str) -> Json:
        return json.loads((self.folder / "evaluations" / f"{label}.json").read_text(encoding="utf-8"))

    def _evaluate(self, label: str, where: str) -> None:
        config = self.recipe.evaluate
        if config is None:
            return
        full = {w.reward.name for s in self.recipe.stages for w in getattr(s, "rewards", ())}
        trained = frozenset(full | {name.partition(":")[0].rpartition(".")[2] for name in full})
        self.watcher.begin(f"evaluate {label}", 100, 0)
        for share in evaluate.run(self.model, config, label, self.folder, where, trained):
            self.watcher.step(round(100 * share), {})
            if self._wish:
                raise Interrupted(f"saved before evaluating {label}; go on with --resume.")

    def _entering(self, index: int) -> str:
        return "base" if index == 0 else self._leaving(index - 1)

    def _leaving(self, index: int) -> str:
        return f"{self.labels[index]}-end"

    def _weights(self) -> dict[str, Any]:
        return {f"weights/{n}": p.detach() for n, p in trainable(self.model.network).items()}

    def _state(self) -> dict[str, dict[str, Any]]:
        learner = self.runtime.learner
        return {
            "learner": learner.state() if learner else self._weights(),
            "reference": self.model.reference_weights.state(),
        }

    def _save(self, name: str, position: Json, tensors: dict[str, dict[str, Any]], keep: tuple[str, ...] = ()) -> None:
        learner = self.runtime.learner
        full = {
            "updates": learner.updates if learner else 0,
            "adapter_off": self.model.reference_weights.adapter_off,
            **position,
        }
        checkpoint.save(self.checkpoints, name, self.fingerprint, Checkpoint(tensors, full), keep)

    def _restore(self, state: Checkpoint) -> None:
        """Bring the learner and the reference of a stage under way back."""
        if self.runtime.learner is not None:
            own = {key: value.to(self.model.device) for key, value in state.tensors["learner"].items()}
            self.runtime.learner.load(own, state.position["updates"])
        if self.model.reference_weights.exists:
            self.model.reference_weights.load(state.tensors.get("reference", {}), state.position["adapter_off"])

    def _log(self, label: str, index: int, report: Report) -> None:
        self._append(self.metrics, {"stage": label, "index": index, "step": report.step, **report.metrics})

    @staticmethod
    def _append(path: Path, row: Json) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _forget_after(self, position: Json) -> None:
        """Drop rows that the steps about to be repeated will write again."""
        for path in (self.metrics, self.ledger):
            if not path.exists():
                continue
            kept = [
                r
                for r in _rows(path)
                if (r["index"], r.get("step", -1))
                < (position["stage"], position["next"] if path is self.metrics else -1)
            ]
            write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept))


def _rows(path: Path) -> Iterator[Json]:
    """Rows of a JSONL file; a last line that a kill cut short is left out."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


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


def _with_folder(stage: Any, folder: Path) -> Any:
    """The stage's config with "{run}" in its dataset's values replaced by the run folder."""
    dataset = getattr(stage, "dataset", None)
    if dataset is None:
        return stage
    text = json.dumps(configs.dump(dataset))
    if "{run}" not in text:
        return stage
    tree = json.loads(text.replace("{run}", json.dumps(str(folder))[1:-1]))
    return stage.model_copy(update={"dataset": parts.configure("dataset", tree)})
