"""The files of a run folder and their rows: what is written, and what is read of it, whoever wrote it when.

A record says which form it has (`schema`) and which Reelign wrote it. Reading asks only for what it needs: older rows,
and those with keys that only later versions know, are read as far as they go.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from reelign import __version__
from reelign.errors import BadData

Json = dict[str, Any]
R = TypeVar("R", bound="Record")


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


MaybeNumber = Annotated[float | None, BeforeValidator(_finite)]
"""A value that does not apply is null or NaN in a file, and None here; so is one that is infinite."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Record(_Part):
    """A file, or a row of one."""

    SCHEMA: ClassVar[int] = 1
    """Of the form that is written here; files from before it was said have none."""
    BY: ClassVar[str] = "reelign"
    """The key of the version of Reelign that wrote it."""

    @classmethod
    def read(cls: type[R], row: object, where: str) -> R:
        """What was written, as a record; `where` it stands is named in the message.

        Raises:
            BadData: it lacks something or holds something else, or has a form that only a later version reads.
        """
        said = row if isinstance(row, Mapping) else {}
        schema = said.get("schema", 0)
        if isinstance(schema, int) and schema > cls.SCHEMA:
            raise BadData(
                f"{where} has schema {schema}, written by Reelign {said.get(cls.BY, 'of a later version')}, but this "
                f"one, {__version__}, reads schemas up to {cls.SCHEMA}; update it."
            )
        try:
            return cls.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            at = ".".join(str(part) for part in first["loc"])[:200] or "the record"
            more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            raise BadData(f"{where}: {at}: {first['msg'].lower()}{more}; was it written by another version?") from error

    def dump(self) -> Json:
        """What is written of it."""
        return {"schema": self.SCHEMA, self.BY: __version__, **self.model_dump()}


def judged_as(label: str, sampler: str = "") -> str:
    """Name of an evaluation's file: the label of its weights, and of a sampler other than the main one the name too."""
    return f"{label}@{sampler}" if sampler else label


class Summary(_Part):
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


class Clip(_Part):
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


class Evaluation(Record):
    """evaluations/*.json: weights judged on the held-out prompts, a file a sampler (`judged_as`)."""

    SCHEMA: ClassVar[int] = 2
    """Since 2 there may be a file for each sampler; an earlier version would take a further one's for a stage's own."""

    label: str
    """Of the weights."""
    checkpoint: str = ""
    sampler: Mapping[str, Any] = Field(default_factory=dict)
    """Its name and settings."""
    members: int = 1
    measures: Mapping[str, Summary]
    clips: tuple[Clip, ...]
    infinite: Mapping[str, int] = Field(default_factory=dict)
    """Clips on which a measure was infinite, by its name: left out of its numbers."""

    @model_validator(mode="before")
    @classmethod
    def _count_infinite(cls, row: Any) -> Any:
        """Whatever else the row is, is for the validation to say."""
        if not isinstance(row, Mapping) or "infinite" in row:
            return row
        counts: dict[str, int] = {}
        clips = row.get("clips")
        for clip in clips if isinstance(clips, list | tuple) else ():
            measures = clip.get("measures") if isinstance(clip, Mapping) else None
            for name, value in measures.items() if isinstance(measures, Mapping) else ():
                if isinstance(value, float) and math.isinf(value):
                    counts[name] = counts.get(name, 0) + 1
        return {**row, "infinite": counts}

    @property
    def under(self) -> str:
        """The name of its sampler, where that was written."""
        return str(self.sampler.get("name", ""))

    @cached_property
    def by_key(self) -> dict[tuple[int, int], Clip]:
        """Its clips by (prompt_id, member)."""
        return {clip.key: clip for clip in self.clips}

    @cached_property
    def prompts(self) -> dict[int, str]:
        """Prompt texts by id."""
        return {clip.prompt_id: clip.prompt for clip in self.clips}

    @property
    def means(self) -> dict[str, float | None]:
        """Of each measure."""
        return {name: measure.mean for name, measure in self.measures.items()}

    def better_than(self, best: "Best | None", measure: str) -> bool:
        """Whether its mean of a measure is better than that of the best so far."""
        found = self.measures.get(measure)
        if found is None or found.mean is None:
            return False
        return best is None or (found.mean - best.value) * (1 if found.higher_is_better else -1) > 0

    def shares_noise(self, other: "Evaluation") -> bool:
        """Whether clips that both have started from the same noise."""
        theirs = other.by_key
        return all(clip.seed == theirs[clip.key].seed for clip in self.clips if clip.key in theirs)


class Target(_Part):
    """A measure that a stage had to raise."""

    metric: str
    before: MaybeNumber
    after: MaybeNumber
    difference: float
    """Positive is better, whatever the measure's own direction; so are `low` and `high`."""
    low: float
    high: float
    min_gain: MaybeNumber = None
    """What it had to rise by, where that was written."""
    rose: bool
    """What the gate asked for: beyond the noise, and by as much as it wanted."""


class FallenSlice(_Part):
    """A slice that a stage made worse."""

    slice: str
    metric: str
    difference: float
    """Negative, which is worse, whatever the measure's own direction."""
    low: float
    high: float
    level: MaybeNumber = None
    """Coverage of the interval, where it was written; higher, the more slices were looked at."""
    sampler: str = ""
    """Name of the one it fell under, where that was written."""
    against: str = ""
    """ "base" where it is worse than the base; else it is worse than what entered the stage."""


class Gate(_Part):
    """Whether a stage may pass its weights on."""

    verdict: str
    """ "passed", "failed", or any other word where no gate judged."""
    sentence: str = ""
    sampler: str = ""
    """Name of the one under which its targets had to rise, where that was written."""
    unjudged: str = ""
    """The stage whose weights entered, where no gate had judged them."""
    targets: tuple[Target, ...] = ()
    fallen_slices: tuple[FallenSlice, ...] = ()


class Best(_Part):
    """Which weights of a stage are its best so far."""

    measure: str
    step: int
    """How many were done then."""
    value: float


class RewardUse(_Part):
    """A reward as a stage used it."""

    weight: float | Mapping[str, float] = 1.0
    """Of all its scores, or of each."""
    version: str = ""


class Stage(Record):
    """A row of ledger.jsonl: a finished stage. Counts of other things than those below stand beside them."""

    model_config = ConfigDict(extra="allow")

    stage: str
    index: int = 0
    kind: str = ""
    steps: int = 0
    entering: str = ""
    leaving: str | None = None
    method: str = ""
    dataset: Mapping[str, Any] | None = None
    rewards: Mapping[str, RewardUse] = Field(default_factory=dict)
    prompts: int = 0
    rollouts: int = 0
    pairs: int = 0
    clips: int = 0
    forwards: int = 0
    """Forward-units, where they were counted."""
    note: str | None = None
    best: Best | None = None
    """Of a stage that hands its best weights on instead of its last ones."""
    judged: bool = False
    """Whether its weights were evaluated, where that was written."""
    machine: Mapping[str, Any] = Field(default_factory=dict)
    """Device, threads and PyTorch, where they were written."""
    started: str | None = None
    wall_s: float | None = None
    gate: Gate | None = None

    @property
    def decided(self) -> bool:
        """Whether a gate decided about its weights."""
        return self.gate is not None and self.gate.verdict in ("passed", "failed")


class Step(Record):
    """A row of metrics.jsonl: a finished step. Its metrics stand beside the rest, by their names."""

    stage: str
    index: int = 0
    step: int = Field(ge=0, lt=2**63)
    wall_s: float = 0.0
    """Seconds that it took."""
    forwards: int = 0
    """Forward-units of the stage up to here."""
    metrics: Mapping[str, float] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _take_apart(cls, row: Any) -> Any:
        """Whatever is a number and none of its own keys is a metric; one that no float holds is infinite."""
        if not isinstance(row, Mapping) or isinstance(row.get("metrics"), Mapping):
            return row
        own = {key: row[key] for key in cls.model_fields if key in row}
        numbers = {key: value for key, value in row.items() if key not in own and key != "schema"}
        metrics = {
            key: value if isinstance(value, float) or abs(value) < 2**1000 else math.inf
            for key, value in numbers.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        return {**own, "metrics": metrics}

    def dump(self) -> Json:
        """One flat row."""
        row = super().dump()
        metrics = row.pop("metrics")
        return {**row, **metrics}


class Sample(Record):
    """A row of samples.jsonl: a sample that a step has trained on, kept to be looked at."""

    prompt: str
    prompt_id: int
    member: int
    seed: int
    rewards: Mapping[str, MaybeNumber]
    """By score, before weighting."""
    video: str
    """Path in the run folder."""
    stage: str = ""
    index: int = 0
    """Of its stage, from 0; so is `step`."""
    step: int = 0


OVER = ("done", "stopped", "failed")
"""Phases of a run that is not under way."""


class Status(Record):
    """run.json: where a run stands, as it said itself. Times are seconds since 1970."""

    pid: int
    host: str
    phase: str
    """checking, training, evaluating, saving, exporting, or one of `OVER`."""
    stage: str = ""
    step: int = 0
    """Done of `of`: steps, or clips of an evaluation."""
    of: int = 0
    each_s: float | None = None
    """Seconds that one of those takes."""
    started: float
    since: float
    """When the phase began."""
    updated: float
    finished: float | None = None
    why: str = ""
    """Why it was stopped or failed."""

    @property
    def left_s(self) -> float | None:
        """Seconds that the phase will still take, going on as it did; None where nothing tells."""
        return None if self.each_s is None else self.each_s * (self.of - self.step)


class Started(Record):
    """config.json: which run a folder holds, and all its settings."""

    model_config = ConfigDict(extra="allow")
    BY: ClassVar[str] = "version"

    config: Mapping[str, Any]
    """The resolved recipe."""
    id: str = ""
    hash: str = ""
    """Of the settings."""


class Check(Record):
    """A row of a bake-off's result.jsonl: where a run stood when it was judged.

    Everything is counted from its start and leaves evaluation out; `reward_s` is without decoding.
    """

    check: int
    evaluation: str
    """Path of the evaluation, below the run's folder."""
    step: int = 0
    units: int = 0
    seconds: float = 0.0
    rollout_s: float = 0.0
    decode_s: float = 0.0
    reward_s: float = 0.0
    update_s: float = 0.0
    stopped: str = ""
    """Why the run ended before its budget; its weights of then are judged at every later check, or those judged before,
    where an update broke them."""


class Cell(_Part):
    """A sampler that was tried, and the measure that chooses, on the prompts that choose."""

    sampler: Mapping[str, Any]
    mean: MaybeNumber
    low: MaybeNumber
    high: MaybeNumber
    n: int


class Chosen(_Part):
    """Weights at their best: the sampler that won at a budget, and how they are judged with it on the other prompts."""

    model: str
    forwards: int
    """That a clip costs."""
    sampler: Mapping[str, Any]
    tried: tuple[Cell, ...]
    measures: Mapping[str, Summary]


class Levels(_Part):
    """A measure of two that are held against each other; the difference is the second's minus the first's."""

    before: float
    after: float
    difference: float
    low: float
    high: float
    higher_is_better: bool = True


class Contest(_Part):
    """Two models at a budget, each at its best."""

    forwards: int
    first: str
    other: str
    measures: Mapping[str, Levels]


class Search(Record):
    """best.json: which samplers suit which weights, chosen on one half of the prompts and judged on the other."""

    by: str
    """The measure that chose."""
    chosen_on: int
    judged_on: int
    """Prompts."""
    chosen: tuple[Chosen, ...]
    contests: tuple[Contest, ...]
