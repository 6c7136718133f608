"""What happens in a run, as it is told to whoever looks on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Kind = Literal["stage", "phase", "step", "sample", "evaluation", "gate", "saved", "note"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that has happened.

    | kind | when | data |
    |---|---|---|
    | stage | a stage begins, or goes on from `step` | its index and kind, method, dataset, rewards |
    | phase | something else than a step is under way; within it `step` of `of` clips are done | phase |
    | step | a step is finished | its metrics, `wall_s`, `forwards` of the stage so far |
    | sample | a step has kept one of its samples | a `records.Sample` |
    | evaluation | weights have been judged | label, the means of measures, and others: those under further samplers |
    | gate | a gate has judged a stage | a `records.Gate` |
    | saved | a checkpoint is on the disk | its name |
    | note | something is worth a line | text |
    """

    at: float
    """Seconds since 1970."""
    kind: Kind
    stage: str = ""
    """Its label; "base" before the first one, nothing where it is about the whole run."""
    step: int = 0
    """How many are done."""
    of: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Sink(Protocol):
    """Who looks on. One that raises is let go, and the run goes on without it."""

    def send(self, event: Event) -> None:
        """Something has happened."""
        ...

    def close(self) -> None:
        """Nothing more will."""
        ...


@dataclass(frozen=True, slots=True)
class About:
    """The run that a sink looks at."""

    folder: Path
    name: str
    id: str
    config: Mapping[str, Any]
    """The resolved recipe."""


class Progress:
    """A sink that shows people how far a run is: what has begun, a step that is done, a sentence."""

    _shown = ""

    def send(self, event: Event) -> None:
        """Show what of an event people follow."""
        if event.kind == "note":
            self.say(event.data["text"])
        elif event.kind == "stage":
            self._turn_to(event.stage, event.of, event.step)
        elif event.kind == "step":
            if self._shown != event.stage:  # the stage goes on after an evaluation
                self._turn_to(event.stage, event.of, event.step - 1)
            self.step(event.step, event.data)
        elif event.kind == "phase" and event.data["phase"] == "evaluating":
            if event.step:
                self.step(event.step, {})
            else:
                self._turn_to(f"evaluate {event.stage} (clips)", event.of, 0)

    def close(self) -> None:
        """Nothing to put away."""

    def _turn_to(self, label: str, total: int, done: int) -> None:
        self._shown = label
        self.begin(label, total, done)

    def begin(self, label: str, total: int, done: int) -> None:
        """A stage or an evaluation starts or goes on; `done` of `total` steps are already there."""

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """A step is finished."""

    def say(self, sentence: str) -> None:
        """Something worth a line."""
