"""Held-out evaluation: the same prompts and seeds for every checkpoint, measured clip by clip, with intervals."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from reelign import judges, panel, records, video
from reelign.batches import Prompts, Videos
from reelign.core import rng, stats
from reelign.declared import Declaration
from reelign.files import write_text
from reelign.judges import Judge, Named
from reelign.opened import Datasets
from reelign.parts import AnyDataset, AnyMetric
from reelign.runtime.work import Samples, StageSpec, Work
from reelign.sampling import SamplerConfig
from reelign.stage import Context, Draw, Report, StageConfig

Json = dict[str, Any]


class Config(StageConfig):
    """What is measured, on which prompts."""

    name: str = "evaluate"
    """The kind of stage."""
    dataset: AnyDataset
    """Held-out prompts: never those of a training stage."""
    members: int = Field(default=2, ge=1, le=10**4)
    """Samples of each prompt; diversity needs at least 2."""
    sampler: SamplerConfig = SamplerConfig(guidance=3.0)
    """Guidance is 3 where it is not said, as people sample; without it (1) an evaluation takes half the time."""
    metrics: tuple[AnyMetric, ...] = Field(min_length=1)
    """What is measured on each clip."""
    seed: int = 0
    """Of the evaluation's noise; the same in every run, so that runs can be compared in pairs."""
    batch: int = Field(default=32, ge=1)
    """Samples in one forward pass."""
    videos: int = Field(default=12, ge=0)
    """The first so many prompts keep their first member's video for the report."""
    scale: int | None = Field(default=None, ge=1, le=64)
    """Enlargement of those videos; by default tiny clips are enlarged to about 256 pixels of width."""

    evaluates: ClassVar = True

    @property
    def asks(self) -> tuple[Named, ...]:
        """Its metrics."""
        return panel.metrics(self.metrics)

    @property
    def draws(self) -> Draw:
        """Every prompt."""
        return Draw("prompts")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation whose prompts are read and whose metrics are built, for as many checkpoints as are judged."""

    config: Config
    prompts: Prompts
    metrics: tuple[Judge, ...]

    @property
    def clips(self) -> int:
        """How many clips are judged."""
        return len(self.prompts) * self.prompts.group


def prepare(config: Config, opened: Datasets | None = None) -> Evaluation:
    """Read the prompts and build the metrics of an evaluation.

    Raises:
        BadData: the prompts cannot be read.
        BadConfig: a metric that is none, or two of one measure.
    """
    drawn = (opened or Datasets())(config.dataset).all_prompts()
    return Evaluation(config, Prompts(drawn.requests, config.members), panel.built(config.asks))


def seeds(config: Config, prompts: Prompts) -> list[int]:
    """Noise seeds by prompt and member, the same for every checkpoint."""
    return [rng.seed_for(config.seed, "evaluate", i, m) for i in prompts.ids for m in range(prompts.group)]


def run(
    source: Samples, evaluation: Evaluation, label: str, folder: Path, checkpoint: str, trained_on: frozenset[str]
) -> Iterator[int]:
    """Evaluate into `folder/evaluations/<label>.json`; yields how many of the `clips` are sampled as it goes.

    Args:
        source: of the weights to judge.
        evaluation: what to measure.
        label: "base" or a stage's label.
        folder: the run folder.
        checkpoint: where the weights came from, for the record.
        trained_on: names of rewards that train in this run; measures and metrics of the same name are flagged.

    Raises:
        PartFailed: a metric that raised, or gave something else than one number a clip.
        RunStopped: latents or frames that are not finite.
    """
    config, prompts, metrics = evaluation.config, evaluation.prompts, evaluation.metrics
    own_seeds, where = seeds(config, prompts), f"the evaluation of {label}"
    of = {name: judge for judge in metrics for name in judge.names}
    measures: dict[str, list[Tensor]] = {name: [] for name in of}
    written: dict[int, str] = {}
    # Whole prompts at a time, as measures of sets compare the samples of each; of their videos nothing stays.
    whole, done = max(1, config.batch // config.members) * config.members, 0
    for videos in source.sample(prompts.repeated, own_seeds, config.sampler, whole):
        first = done // config.members
        some = prompts[first : first + len(videos) // config.members]
        done += len(videos)
        for name, values in judges.ask(metrics, videos, some.repeated, where).items():
            measures[name].append(values)
        written |= _write_videos(config, folder, label, some, first, videos)
        del videos  # before the next ones are made
        yield done
    measured = {name: torch.cat(values) for name, values in measures.items()}
    flagged: set[str] = set(trained_on)
    for judge in metrics:
        flagged |= set(judge.names) if "." in judge.name and judge.name in trained_on else set()
    content = {
        "label": label,
        "checkpoint": checkpoint,
        "sampler": config.sampler.model_dump(),
        "members": config.members,
        "measures": {
            name: _summary(name, values, prompts, of[name].says, name in flagged) for name, values in measured.items()
        },
        "clips": _rows(prompts, own_seeds, measured, written),
    }
    judged = records.Evaluation.model_validate(content)
    path = folder / "evaluations" / f"{label}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(judged.dump(), ensure_ascii=False, indent=1))


def _write_videos(
    config: Config, folder: Path, label: str, prompts: Prompts, first: int, videos: Videos
) -> dict[int, str]:
    """Keep the first member's video of each prompt that the report shows; `first` is their place among all."""
    shown, written = min(config.videos - first, len(prompts)), {}
    if shown > 0:
        (folder / "samples" / label).mkdir(parents=True, exist_ok=True)
    for p in range(shown):
        name = f"samples/{label}/{prompts.ids[p]:04d}-0.mp4"
        video.write(folder / name, videos.frames[p * prompts.group], videos.fps, scale=config.scale)
        written[(first + p) * prompts.group] = name
    return written


def _summary(name: str, values: Tensor, prompts: Prompts, metric: Declaration, trained_on: bool) -> Json:
    ids = [prompt for prompt in prompts.ids for _ in range(prompts.group)]
    known = [(value, prompt) for value, prompt in zip(values.tolist(), ids, strict=True) if not math.isnan(value)]
    base = {"n": len(known), "higher_is_better": metric.higher_is_better[name]}
    base |= {"description": metric.description[name], "version": metric.version, "trained_on": trained_on}
    if not known:
        return {"mean": None, "low": None, "high": None, **base}
    estimate = stats.over_prompts([value for value, _ in known], [prompt for _, prompt in known])
    return {"mean": estimate.estimate, "low": estimate.low, "high": estimate.high, **base}


def _rows(
    prompts: Prompts, own_seeds: Sequence[int], measures: dict[str, Tensor], written: dict[int, str]
) -> list[Json]:
    columns = {name: values.tolist() for name, values in measures.items()}
    rows = []
    for index, seed in enumerate(own_seeds):
        p, member = divmod(index, prompts.group)
        values = {name: None if math.isnan(column[index]) else column[index] for name, column in columns.items()}
        rows.append(
            {
                "prompt": prompts.requests[p].text,
                "prompt_id": prompts.requests[p].id,
                "member": member,
                "seed": seed,
                "slices": dict(prompts.requests[p].slices),
                "measures": values,
                "video": written.get(index),
            }
        )
    return rows


class Evaluate:
    """Evaluation as a stage of its own; a step is a batch of clips, and the last one also measures."""

    note = ""

    def __init__(self, config: Config, context: Context) -> None:
        self.config, self.context = config, context
        self.spec, self.evaluation = StageSpec(), prepare(config, context.opened)
        self.steps = -(-len(self.evaluation.prompts) // max(1, config.batch // config.members))

    def run(self, work: Work, start: int) -> Iterator[Report]:
        """Steps `start` to the end. What was sampled before an interruption is not kept, and is sampled again."""
        if start == self.steps:
            return
        label, folder = self.context.label, self.context.folder
        for step, _ in enumerate(run(work, self.evaluation, label, folder, "present", frozenset())):
            # The last step is finished when all is measured and written.
            if start <= step < self.steps - 1:
                yield Report(step, {})
        yield Report(self.steps - 1, {})


def build(config: Config, context: Context) -> Evaluate:
    """Start an evaluation stage."""
    return Evaluate(config, context)
