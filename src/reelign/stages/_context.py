"""What every stage gets from the driver and gives back to it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import BeforeValidator, Field, SerializeAsAny

from reelign import parts
from reelign.names import Label
from reelign.parts import PartConfig, Settings
from reelign.runtime.local import Local


class GateConfig(Settings):
    """When a stage may hand its weights on."""

    targets: tuple[str, ...] = Field(min_length=1)
    """Held-out measures that must get better: the 95 % interval of the paired difference lies on the good side of 0."""
    guards: tuple[str, ...] = ()
    """Measures that must not get worse beyond noise, on the whole set or on any slice (corrected for their number)."""
    min_slice: int = Field(default=12, ge=2)
    """Slices with fewer clips are not judged."""


class StageConfig(PartConfig):
    """What all stages share."""

    label: Label = ""
    """Name in the ledger and the report; the default is the method's or the stage's."""
    gate: GateConfig | None = None
    """Without a gate the stage hands its weights on unjudged."""


AnyStage = Annotated[SerializeAsAny[StageConfig], BeforeValidator(partial(parts.configure, "stage"))]


@dataclass(frozen=True, slots=True)
class Context:
    """The run a stage is part of."""

    runtime: Local
    seed: int
    """Of this stage: every draw in it has a name below this seed."""
    folder: Path
    """The run folder."""
    label: str
    run: str = ""
    """Id of the run, for what only this run may overwrite."""


@dataclass(frozen=True, slots=True)
class Report:
    """One finished step: its metrics by name."""

    step: int
    metrics: dict[str, float]
    counts: dict[str, int] = field(default_factory=dict)
    """What the step used up, for the ledger: prompts, rollouts, clips, pairs."""


@runtime_checkable
class Stage(Protocol):
    """A stage under way."""

    steps: int
    note: str
    """Said in the ledger and the report, such as that preferences are simulated."""

    def run(self, start: int) -> Iterator[Report]:
        """Do steps `start` to `steps`; each yielded report is a finished transaction."""
        ...

    def describe(self) -> dict[str, Any]:
        """Method, dataset and reward versions, for the ledger."""
        ...
