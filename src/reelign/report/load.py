"""Reading a run folder into frozen values; an unfinished run is a run with fewer stages."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from reelign.errors import UserError

BASE = "base"
"""Label of the evaluation made before any stage."""
_RESERVED = frozenset({"stage", "index", "step", "wall_s"})

MaybeNumber = Annotated[
    float | None, BeforeValidator(lambda value: None if isinstance(value, float) and math.isnan(value) else value)
]
"""A value that does not apply is null or NaN in a file, and None here."""


class _Record(BaseModel):
    # A later version may write more than this one reads; what it reads must fit.
    model_config = ConfigDict(extra="ignore", frozen=True)


T = TypeVar("T", bound=_Record)


class Summary(_Record):
    """One measure of one evaluation, over all the clips it applies to; `mean` is None where it applies to none."""

    mean: MaybeNumber
    low: MaybeNumber
    high: MaybeNumber
    n: int
    higher_is_better: bool = True
    description: str = ""
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

    @property
    def by_key(self) -> dict[tuple[int, int], Clip]:
        """Its clips by (prompt_id, member)."""
        return {clip.key: clip for clip in self.clips}

    @property
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


class FallenSlice(_Record):
    """A slice that a stage made worse."""

    slice: str
    metric: str
    difference: float
    """Negative, which is worse, whatever the measure's own direction."""
    low: float
    high: float


class Gate(_Record):
    """Whether a stage may pass its weights on."""

    verdict: Annotated[
        Literal["passed", "failed", "ungated"],
        BeforeValidator(lambda value: "ungated" if value == "skipped" else value),
    ]
    """Earlier versions wrote "skipped" for a stage without a gate."""
    sentence: str = ""
    targets: tuple[Target, ...] = ()
    fallen_slices: tuple[FallenSlice, ...] = ()


class RewardUse(_Record):
    """A reward as a stage used it."""

    weight: float = 1.0
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
    note: str | None = None
    started: str | None = None
    wall_s: float | None = None
    gate: Gate | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """What one optimizer step reported; `values` by quantity name, non-finite ones included."""

    stage: str
    step: int
    wall_s: float | None
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, read. `evaluations` are in the order of the stages, the base first; absent ones are left out."""

    folder: Path
    name: str
    hash: str
    version: str
    config: Mapping[str, Any]
    stages: tuple[Stage, ...]
    metrics: tuple[Metrics, ...]
    evaluations: Mapping[str, Evaluation]

    @property
    def base(self) -> Evaluation | None:
        """The evaluation before any stage."""
        return self.evaluations.get(BASE)

    @property
    def failed(self) -> frozenset[str]:
        """Stages whose gate failed; the weights that entered them were kept, and theirs were dropped."""
        return frozenset(s.stage for s in self.stages if s.gate is not None and s.gate.verdict == "failed")

    @property
    def final(self) -> Evaluation | None:
        """The evaluation of the weights the run ends with so far: the last whose gate did not fail."""
        return self.before(None)

    def before(self, label: str | None) -> Evaluation | None:
        """The evaluation of the weights that entered a stage (None: that leave the last one)."""
        found = None
        for name, evaluation in self.evaluations.items():
            if name == label:
                return found
            if name not in self.failed:
                found = evaluation
        return found

    @property
    def planned(self) -> tuple[str, ...]:
        """Names of the stages that the recipe asks for and the ledger does not have yet."""
        asked = self.config.get("stages")
        if not isinstance(asked, list):
            return ()
        return tuple(_label(stage) for stage in asked[len(self.stages) :])

    @property
    def measures(self) -> dict[str, Summary]:
        """Each measure of any evaluation, with the latest evaluation's summary."""
        return {name: summary for e in self.evaluations.values() for name, summary in e.measures.items()}

    def rates(self) -> frozenset[str]:
        """Measures that are 0 or 1 on every clip, so that their mean is a share."""
        seen: dict[str, set[float]] = {}
        for evaluation in self.evaluations.values():
            for clip in evaluation.clips:
                for name, value in clip.measures.items():
                    if value is not None:
                        seen.setdefault(name, set()).add(value)
        return frozenset(name for name, values in seen.items() if values <= {0.0, 1.0})

    def video(self, clip: Clip) -> Path | None:
        """Where a clip's video lies; None when it has none or the file is gone.

        Raises:
            UserError: for a path that leads out of the run folder.
        """
        if clip.video is None:
            return None
        path = (self.folder / clip.video).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise UserError(
                f"{self.folder}: the video {clip.video[:200]!r} of prompt {clip.prompt_id} lies outside the run "
                "folder, where evaluations/*.json must not point."
            )
        return path if path.is_file() else None


def load(folder: Path) -> Run:
    """Read a run folder.

    Only `config.json` has to be there. A last line that a killed run left half-written is dropped.

    Raises:
        UserError: the folder is no run folder, or one of its files does not read as this version writes it.
    """
    folder = Path(folder)
    settings = _settings(folder)
    config = settings.get("config")
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.json'} has no resolved recipe under 'config'; is it from another program?")
    stages = tuple(_validate(Stage, row, where) for row, where in _lines(folder / "ledger.jsonl"))
    return Run(
        folder=folder,
        name=folder.resolve().name,
        hash=str(settings.get("hash", "")),
        version=str(settings.get("version", "")),
        config=config,
        stages=stages,
        metrics=tuple(_metrics(row, where) for row, where in _lines(folder / "metrics.jsonl")),
        evaluations=_evaluations(folder, [stage.stage for stage in stages]),
    )


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not folder.exists():
        raise UserError(f"there is no folder {folder}; give the path of a run, for example runs/NAME.")
    if not path.is_file():
        inside = sorted(p.parent.name for p in folder.glob("*/config.json")) if folder.is_dir() else []
        hint = f" It holds runs, though: {', '.join(inside[:8])}." if inside else ""
        raise UserError(
            f"{folder} is not a run folder: it has no config.json.{hint} "
            "Give a folder that `reelign align` or `reelign demo` wrote, for example runs/NAME."
        )
    settings = _json(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(settings, dict):
        raise UserError(f"{path} should hold an object with 'hash', 'config' and 'version'.")
    return settings


def _evaluations(folder: Path, order: list[str]) -> dict[str, Evaluation]:
    paths = {path.stem: path for path in sorted((folder / "evaluations").glob("*.json"))}
    ranked = [label for label in (BASE, *order) if label in paths]
    ranked += [label for label in paths if label not in ranked]
    found = {}
    for label in ranked:
        path = paths[label]
        row = _json(path.read_text(encoding="utf-8"), str(path))
        # The file's name is what the ledger refers to.
        found[label] = _validate(Evaluation, row, str(path)).model_copy(update={"label": label})
    return found


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        # Only a line without its end can have been cut off by a crash; anything else is damage.
        unfinished = number == len(lines)
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if unfinished:
                return
            raise UserError(f"{where} is not JSON ({error}); restore the file or delete that line.") from error
        if not isinstance(row, dict):
            raise UserError(f"{where} should hold an object, not {type(row).__name__}.")
        yield row, where


def _metrics(row: dict[str, Any], where: str) -> Metrics:
    stage, step = row.get("stage"), row.get("step")
    if not isinstance(stage, str) or not isinstance(step, int):
        raise UserError(f"{where} needs a 'stage' (a name) and a 'step' (a whole number).")
    values = {
        name: float(value)
        for name, value in row.items()
        if name not in _RESERVED and isinstance(value, int | float) and not isinstance(value, bool)
    }
    wall_s = row.get("wall_s")
    return Metrics(stage, step, float(wall_s) if isinstance(wall_s, int | float) else None, values)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error}); restore it, or run the evaluation again.") from error


def _validate(kind: type[T], row: object, where: str) -> T:
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"]) or "the record"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(f"{where}: {at}: {first['msg'].lower()}{more}; was it written by another version?") from error


def _label(stage: object) -> str:
    """What a stage of a recipe will be called: its label, else its method, else its kind."""
    if not isinstance(stage, dict):
        return "stage"
    method = stage.get("method")
    name = method.get("name") if isinstance(method, dict) else method
    found = stage.get("label") or name or stage.get("name")
    return found if isinstance(found, str) else "stage"
