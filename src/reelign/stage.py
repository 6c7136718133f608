"""What a driver asks of every stage before it is built, what it gives to it, and what it gets back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from reelign import config as configs
from reelign import panel, parts
from reelign.judges import Named
from reelign.names import Label
from reelign.opened import Datasets
from reelign.parts import PartConfig, Settings
from reelign.protocols import Card
from reelign.records import Sample
from reelign.runtime.collected import Collected
from reelign.runtime.footprint import Burden
from reelign.runtime.work import StageSpec, Work
from reelign.settings import in_run, within

Data = Literal["prompts", "clips", "pairs"]
Least = Annotated[float, Field(ge=0)]


class GateConfig(Settings):
    """When a stage may hand its weights on."""

    targets: tuple[str, ...] = Field(min_length=1)
    """Held-out measures that must get better than with the weights that entered the stage: the 95 % interval of the
    paired difference lies on the good side of 0."""
    sampler: str = ""
    """Name of the sampler of `evaluate` under which targets must get better; by default the main one."""
    guards: tuple[str, ...] = ()
    """Measures that must not get worse beyond noise, on the whole set or on any slice (corrected for their number):
    under no sampler of `evaluate`, and neither than with the weights that entered nor than the base."""
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


@dataclass(frozen=True, slots=True)
class Draw:
    """What a stage draws from its dataset."""

    what: Data
    n: int = 0
    """Prompts of its largest draw; 0 where it takes what there is."""
    group: int = 1
    """Samples of each prompt."""


class StageConfig(PartConfig):
    """What all stages share: settings, and what a driver asks of a stage before it is built."""

    label: Label = ""
    """Name in the ledger and the report; the default is the method's or the stage's."""
    gate: GateConfig | None = None
    """Without a gate the stage hands its weights on unjudged."""

    @property
    def title(self) -> str:
        """Its name where it has no label: its method's, if it has one."""
        return getattr(self, "method", self).name

    @property
    def extent(self) -> int:
        """Steps that the recipe asks for, more of which extend a finished run; 0 where something else decides them."""
        return getattr(self, "steps", 0)

    @property
    def asks(self) -> tuple[Named, ...]:
        """The rewards or metrics that see what it samples for its dataset's prompts."""
        return panel.rewards(getattr(self, "rewards", ()))

    @property
    def trains_on(self) -> frozenset[str]:
        """Names of the rewards that its weights or data come from, whole and without a path before them."""
        return panel.names(getattr(self, "rewards", ()))

    @property
    def draws(self) -> Draw | None:
        """What it draws from its `dataset`; None where it has none."""
        return None

    @property
    def writes(self) -> Mapping[str, Data]:
        """Files in the run folder that later stages may read, and what they hold, as in {"pairs/pairs.jsonl": "pairs"}.

        Each has a folder that is the stage's own.
        """
        return {}

    def files(self, label: str) -> tuple[str, ...]:
        """Names of the evaluations that it writes under its label, as in ("look", "look@guided")."""
        return ()

    @property
    def shift(self) -> float | None:
        """The sampler's, where it trains on what it samples; what is exported says it."""
        return None

    @property
    def burden(self) -> Burden | None:
        """What it asks of its device's memory beside the state of its `learner`; None where it trains nothing."""
        return None

    def describe(self) -> dict[str, Any]:
        """Method, dataset, and rewards with their versions, for the ledger."""
        dataset, rewards = getattr(self, "dataset", None), getattr(self, "rewards", ())
        told = {"dataset": configs.dump(dataset) if dataset else {}, "rewards": panel.describe(rewards)}
        return {"method": self.title, **told}

    def check(self, texts: tuple[str, ...], card: Card | None) -> None:
        """Refuse what it cannot do with all the prompts of its dataset and the model, before any compute.

        `card` is None where the model's family gives none.

        Raises:
            UserError: in one sentence.
        """

    def collected(self, folder: Path, run: str) -> Collected | None:
        """The record of what it writes into the folder of the run of that id."""
        return None

    def within(self, folder: Path) -> "StageConfig":
        """The stage, its dataset's paths that begin with {run} taken from a run folder."""
        dataset = getattr(self, "dataset", None)
        return self.model_copy(update={"dataset": within(dataset, folder)}) if in_run(dataset) else self


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
    opened: Datasets = field(default_factory=Datasets)
    """The run's datasets: `context.opened(config.dataset)`."""


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
