"""The rows of a run folder: what this version reads of them, whatever else a later one writes."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


MaybeNumber = Annotated[float | None, BeforeValidator(_finite)]
"""A value that does not apply is null or NaN in a file, and None here; so is one that is infinite."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Summary(_Record):
    """One measure of one evaluation, over all the clips it applies to; `mean` is None where it applies to none."""

    mean: MaybeNumber
    low: MaybeNumber
    high: MaybeNumber
    n: int
    higher_is_better: bool = True
    description: str = ""
    version: str = ""
    """Of what measured; empty where it is not known."""
    trained_on: bool = False


class Clip(_Record):
    """One sampled clip and what was measured on it."""

    prompt: str
    prompt_id: int
    member: int
    seed: int
    slices: Mapping[str, str] = Field(default_factory=dict)
    measures: Mapping[str, MaybeNumber]
    video: str | None = None

    @property
    def key(self) -> tuple[int, int]:
        """What pairs it with the clip of another evaluation: prompt and member."""
        return self.prompt_id, self.member


class Evaluation(_Record):
    """One checkpoint on the held-out prompts."""

    label: str
    checkpoint: str = ""
    sampler: Mapping[str, Any] = Field(default_factory=dict)
    members: int = 1
    measures: Mapping[str, Summary]
    clips: tuple[Clip, ...]
    infinite: Mapping[str, int] = Field(default_factory=dict)
    """Clips on which a measure was infinite, by its name; not from the file."""

    @cached_property
    def by_key(self) -> dict[tuple[int, int], Clip]:
        """Its clips by (prompt_id, member)."""
        return {clip.key: clip for clip in self.clips}

    @cached_property
    def prompts(self) -> dict[int, str]:
        """Prompt texts by id."""
        return {clip.prompt_id: clip.prompt for clip in self.clips}

    def shares_noise(self, other: "Evaluation") -> bool:
        """Whether clips that both have started from the same noise."""
        theirs = other.by_key
        return all(clip.seed == theirs[clip.key].seed for clip in self.clips if clip.key in theirs)


class Target(_Record):
    """A measure that a stage had to raise."""

    metric: str
    before: MaybeNumber
    after: MaybeNumber
    difference: float
    """Positive is better, whatever the measure's own direction; so are `low` and `high`."""
    low: float
    high: float
    rose: bool
    """What the gate asked for: beyond the noise, and by as much as it wanted."""


class FallenSlice(_Record):
    """A slice that a stage made worse."""

    slice: str
    metric: str
    difference: float
    """Negative, which is worse, whatever the measure's own direction."""
    low: float
    high: float
    level: MaybeNumber = None
    """Coverage of the interval, where it was written; higher, the more slices were looked at."""


class Gate(_Record):
    """Whether a stage may pass its weights on."""

    verdict: str
    """ "passed", "failed", or any other word where no gate judged."""
    sentence: str = ""
    targets: tuple[Target, ...] = ()
    fallen_slices: tuple[FallenSlice, ...] = ()


class RewardUse(_Record):
    """A reward as a stage used it."""

    weight: float | Mapping[str, float] = 1.0
    """Of all its scores, or of each."""
    version: str = ""


class Stage(_Record):
    """One row of the ledger."""

    stage: str
    index: int = 0
    kind: str = ""
    method: str = ""
    steps: int = 0
    entering: str = ""
    leaving: str | None = None
    dataset: Mapping[str, Any] | None = None
    rewards: Mapping[str, RewardUse] = Field(default_factory=dict)
    prompts: int = 0
    rollouts: int = 0
    pairs: int = 0
    clips: int = 0
    forwards: int = 0
    """Forward-units, where they were counted."""
    note: str | None = None
    started: str | None = None
    machine: Mapping[str, Any] = Field(default_factory=dict)
    """Device, threads and PyTorch, where they were written."""
    wall_s: float | None = None
    judged: bool = False
    """Whether its weights were evaluated, where that was written."""
    gate: Gate | None = None

    @property
    def decided(self) -> bool:
        """Whether a gate decided about its weights."""
        return self.gate is not None and self.gate.verdict in ("passed", "failed")
