"""A whole small run of the closed-form family, and watchers that do something at one moment."""

import hashlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reelign import config as configs
from reelign import driver
from reelign.events import Progress

DATA = {"name": "tests.parts.gaussian_data:build", "var": 0.5}
InChild = Callable[[Callable[[], object]], int]
"""The fixture `in_child`."""


def tree_of(root: Path, **changes: Any) -> dict[str, Any]:
    """SFT on darker data, which the gate must refuse; GRPO on brightness, which it must pass; DPO."""
    tree: dict[str, Any] = {
        "run": {"name": "toy", "root": str(root), "seed": 3, "save_every": 2},
        "model": {"name": "gaussian", "side": 2, "var": 0.5, "bins": 2},
        "evaluate": {
            "dataset": {**DATA, "what": "held-out prompt"},
            "members": 2,
            "samplers": [{"steps": 4, "shift": 3.0, "guidance": 1.0}],
            "metrics": ["tests.parts.mean_level:build"],
            "batch": 8,
            "videos": 0,
        },
        "stages": [
            {
                "name": "offline",
                "steps": 5,
                "batch": 8,
                "dataset": {**DATA, "mean": -1.0},
                "method": {"name": "sft"},
                "learner": {"lr": 0.05, "ema": 0.5, "warmup": 2},
                "gate": {"targets": ["level"]},
            },
            {
                "name": "online",
                "steps": 6,
                "prompts": 3,
                "group": 4,
                "dataset": DATA,
                "sampler": {"steps": 4, "shift": 3.0},
                "method": {"name": "grpo", "window": 2, "among": 3, "kl": 0.01},
                "rewards": [{"name": "tests.parts.linear_reward:build", "k": 2.0, "weight": 0.5}],
                "learner": {"lr": 0.05},
                "gate": {"targets": ["level"], "guards": ["level"], "min_slice": 4},
            },
            {
                "name": "offline",
                "steps": 5,
                "batch": 4,
                "dataset": DATA,
                "method": {"name": "dpo", "beta": 5.0},
                "learner": {"lr": 0.02},
            },
        ],
    }
    return {**tree, **changes}


def recipe_in(root: Path, *assignments: str, **changes: Any) -> driver.Recipe:
    return configs.validate(driver.Recipe, configs.override(tree_of(root, **changes), assignments))


class Watcher(Progress):
    """Notes what happens, and does something at one moment: at so many events, or at "grpo 3", a step of a stage."""

    def __init__(self, moment: int | str = -1, deed: Callable[[], object] = lambda: None) -> None:
        self.events: list[str] = []
        self.said: list[str] = []
        self.moment, self.deed, self._label = moment, deed, ""

    def _note(self, event: str, name: str = "") -> None:
        self.events.append(event)
        if self.moment in (len(self.events) - 1, name):
            self.deed()

    def begin(self, label: str, total: int, done: int) -> None:
        self._label = label
        self._note(f"begin {label} {done}/{total}")

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        self._note(f"step {done}", f"{self._label} {done}")

    def say(self, sentence: str) -> None:
        self.said.append(sentence)
        self._note(sentence)


def go(
    recipe: driver.Recipe,
    watcher: Watcher | None = None,
    resume: bool = False,
    accept_changes: bool = False,
    **more: Any,
) -> Path:
    """Run a recipe as the command line does, for who looks on."""
    sinks = [watcher] if watcher is not None else []
    return driver.run(recipe, sinks, resume, accept_changes, wish=driver.saving_on_interrupt(), **more)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


APART = ("wall_s", "started", "machine")


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.endswith(APART)} for row in rows]


def outcome_of(folder: Path) -> dict[str, Any]:
    """All that a run leaves behind, except how long it took and where."""
    return {
        "final": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((folder / "final").iterdir())},
        "metrics": rows_of(folder / "metrics.jsonl"),
        "ledger": rows_of(folder / "ledger.jsonl"),
        "evaluations": {p.name: json.loads(p.read_text()) for p in sorted((folder / "evaluations").iterdir())},
    }


def newest(folder: Path) -> str:
    """Name of a run's newest checkpoint."""
    states = [json.loads(path.read_text()) for path in (folder / "checkpoints").glob("*/state.json")]
    return max(states, key=lambda state: state["number"])["name"]
