"""What every stage gets from the driver and gives back to it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from reelign import parts
from reelign.names import Label
from reelign.parts import PartConfig, Settings
from reelign.records import Sample
from reelign.runtime.work import StageSpec, Work

Least = Annotated[float, Field(ge=0)]


class GateConfig(Settings):
    """When a stage may hand its weights on."""

    targets: tuple[str, ...] = Field(min_length=1)
    """Held-out measures that must get better: the 95 % interval of the paired difference lies on the good side of 0."""
    guards: tuple[str, ...] = ()
    """Measures that must not get worse beyond noise, on the whole set or on any slice (corrected for their number)."""
    min_slice: int = Field(default=12, ge=2)
    """Slices with fewer clips are not judged."""
    min_gain: Mapping[str, Least] = {}
    """By how much a target must get better on average, in its own unit, as in {clip_right: 0.02}. Noise is the same on
    both sides, so the interval alone would let a difference in the sixth digit pass. The default for shares (0 or 1 on
    every clip) is half a percentage point; for all else a fiftieth of the standard deviation over the clips before, a
    tenth of what is called a small effect, and at least a thousandth of their mean."""
    tolerance: Mapping[str, Least] = {}
    """By how much a guard may get worse on average, on the whole set or on any slice; the same unit and default."""

    @model_validator(mode="after")
    def _of_what_is_judged(self) -> "GateConfig":
        for key, given, named in (("min_gain", self.min_gain, "targets"), ("tolerance", self.tolerance, "guards")):
            other = sorted(given.keys() - set(getattr(self, named)))
            if other:
                raise ValueError(f"{key} has {other[0]!r}, which is none of {named}; add it there or drop it here")
        return self


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
    samples: tuple[Sample, ...] = ()
    """Some of what it trained on, with their videos in the run folder; the driver says of which stage and step."""


@runtime_checkable
class Stage(Protocol):
    """A stage under way."""

    steps: int
    spec: StageSpec
    """What it needs of the runtime."""
    note: str
    """Said in the ledger and the report, such as that preferences are simulated."""

    def run(self, work: Work, start: int) -> Iterator[Report]:
        """Do steps `start` to `steps` in the runtime; each yielded report is a finished transaction."""
        ...

    def describe(self) -> dict[str, Any]:
        """Method, dataset and reward versions, for the ledger."""
        ...
