"""A tiny bake-off that really runs, and a watcher that keeps what it is told."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reelign.events import Progress

DATA = "tests.parts.gaussian_data:build"


def tree(root: Path, **changes: Any) -> dict[str, Any]:
    """Three entries on the closed-form model: one learns fast, one hardly, one is held back."""
    return {
        "name": "toy",
        "root": str(root),
        "seeds": 3,
        "budget": 700,
        "checks": 3,
        "model": {"name": "gaussian", "side": 2, "var": 0.5, "bins": 2},
        "evaluate": {
            "dataset": {"name": DATA, "size": 6},
            "samplers": [{"steps": 4, "shift": 3.0, "guidance": 1.0}],
            "metrics": ["tests.parts.mean_level:build"],
            "videos": 0,
        },
        "stage": {
            "prompts": 3,
            "group": 4,
            "dataset": DATA,
            "sampler": {"steps": 4, "shift": 3.0},
            "method": {"name": "grpo", "among": 3},
            "rewards": [{"name": "tests.parts.linear_reward:build", "k": 2.0}],
            "learner": {"lr": 0.05},
        },
        "entries": [
            {"label": "fast"},
            {"label": "slow", "stage": {"learner": {"lr": 0.001}}},
        ],
        "target": {"measure": "level", "match": "slow"},
        **changes,
    }


class Watcher(Progress):
    """Notes what happens, and does something at one moment."""

    def __init__(self, moment: int = -1, deed: Callable[[], object] = lambda: None) -> None:
        self.begun: list[tuple[str, int]] = []
        self.done: list[int] = []
        self.said: list[str] = []
        self.moment, self.deed = moment, deed

    def begin(self, label: str, total: int, done: int) -> None:
        self.begun.append((label, total))

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        self.done.append(done)
        if len(self.done) == self.moment:
            self.deed()

    def say(self, sentence: str) -> None:
        self.said.append(sentence)
