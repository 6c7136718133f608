"""Held-out evaluation: the same prompts and seeds for every checkpoint, measured clip by clip, with intervals.

It may be repeated under several samplers. The first is the main one: its file is called after the label alone.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from reelign import judges, panel, records, video
from reelign.batches import Prompts, Videos
from reelign.core import rng
from reelign.files import write_text
from reelign.judges import Judge, Named
from reelign.opened import Datasets
from reelign.parts import AnyDataset, AnyMetric
from reelign.runtime.work import Samples, StageSpec, Work
from reelign.stage import Context, Draw, Report, StageConfig
from reelign.stages import _found as found
from reelign.stages._samplers import Sampler, Samplers

Json = dict[str, Any]


class Config(StageConfig):
    """What is measured, on which prompts."""

    name: str = "evaluate"
    """The kind of stage."""
    dataset: AnyDataset
    """Held-out prompts: never those of a training stage."""
    members: int = Field(default=2, ge=1, le=10**4)
    """Samples of each prompt; diversity needs at least 2."""
    samplers: Samplers = (Sampler(),)
    """How clips are sampled: first the main one, which alone judges on the way of a stage and chooses `best`; the base
    and what each stage leaves are judged under all."""
    metrics: tuple[AnyMetric, ...] = Field(min_length=1)
    """What is measured on each clip."""
    seed: int = 0
    """Of the evaluation's noise; the same in every run, so that runs can be compared in pairs."""
    batch: int = Field(default=32, ge=1)
    """Samples in one forward pass."""
    videos: int = Field(default=12, ge=0)
    """The first so many prompts keep their first member's video for the report, under each sampler."""
    scale: int | None = Field(default=None, ge=1, le=64)
    """Enlargement of those videos; by default tiny clips are enlarged to about 256 pixels of width."""

    @property
    def asks(self) -> tuple[Named, ...]:
        """Its metrics."""
        return panel.metrics(self.metrics)

    @property
    def draws(self) -> Draw:
        """Every prompt."""
        return Draw("prompts")

    def files(self, label: str) -> tuple[str, ...]:
        """Names of the files, without their ending, of what is judged under `label`: one a sampler."""
        return tuple(
            records.judged_as(label, "" if not place else each.called) for place, each in enumerate(self.samplers)
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation whose prompts are read and whose metrics are built, for as many checkpoints as are judged."""

    config: Config
    prompts: Prompts
    metrics: tuple[Judge, ...]

    @property
    def clips(self) -> int:
        """How many clips are judged, under all samplers."""
        return sum(len(self.under(sampler)) for sampler in self.config.samplers) * self.prompts.group

    @property
    def glimpse(self) -> "Evaluation":
        """The same under the main sampler only, with no video kept."""
        only = {"samplers": self.config.samplers[:1], "videos": 0}
        return replace(self, config=self.config.model_copy(update=only))

    def under(self, sampler: Sampler) -> Prompts:
        """The prompts that judge under a sampler."""
        return self.prompts[: sampler.prompts]


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
    """Evaluate into `folder/evaluations/`, a file a sampler; yields how many of the `clips` are sampled as it goes.

    Args:
        source: of the weights to judge.
        evaluation: what to measure.
        label: "base" or a stage's label; the files are called `evaluation.config.files(label)`.
        folder: the run folder.
        checkpoint: where the weights came from, for the record.
        trained_on: names of rewards that train in this run; measures and metrics of the same name are flagged.

    Raises:
        PartFailed: a metric that raised, or gave something else than one number a clip.
        RunStopped: latents or frames that are not finite.
    """
    flagged: set[str] = set(trained_on)
    for judge in evaluation.metrics:
        flagged |= set(judge.names) if "." in judge.name and judge.name in trained_on else set()
    done, config = 0, evaluation.config
    for sampler, key in zip(config.samplers, config.files(label), strict=True):
        judging = _Judging(evaluation, sampler, label, key, folder)
        for clips in judging.measure(source):
            done += clips
            yield done
        content = {"label": label, "checkpoint": checkpoint, **judging.told(flagged)}
        judged = records.Evaluation.model_validate(content)
        path = folder / "evaluations" / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(judged.dump(), ensure_ascii=False, indent=1))


class _Judging:
    """Weights under one sampler: clips are measured as they come, and nothing of them stays but some videos."""

    def __init__(self, evaluation: Evaluation, sampler: Sampler, label: str, key: str, folder: Path) -> None:
        self.evaluation, self.sampler, self.key, self.folder = evaluation, sampler, key, folder
        self.prompts = evaluation.under(sampler)
        self.seeds, self.where = seeds(evaluation.config, self.prompts), f"the evaluation of {label}"
        self.of = {name: judge for judge in evaluation.metrics for name in judge.names}
        self.measures: dict[str, list[Tensor]] = {name: [] for name in self.of}
        self.written: dict[int, str] = {}

    def measure(self, source: Samples) -> Iterator[int]:
        """Sample and measure all of it; yields how many clips each batch has."""
        config, metrics = self.evaluation.config, self.evaluation.metrics
        # Whole prompts at a time, as measures of sets compare the samples of each.
        whole, done = max(1, config.batch // config.members) * config.members, 0
        for videos in source.sample(self.prompts.repeated, self.seeds, self.sampler, whole):
            first = done // config.members
            some = self.prompts[first : first + len(videos) // config.members]
            done += (clips := len(videos))
            for name, values in judges.ask(metrics, videos, some.repeated, self.where).items():
                self.measures[name].append(values)
            self.written |= _write_videos(config, self.folder, self.key, some, first, videos)
            del videos  # before the next ones are made
            yield clips

    def told(self, flagged: set[str]) -> Json:
        """What the record says of it."""
        measured = {name: torch.cat(values) for name, values in self.measures.items()}
        return {
            "sampler": self.sampler.recorded(),
            "members": self.prompts.group,
            "measures": {
                name: found.summary(name, values, self.prompts, self.of[name].says, name in flagged)
                for name, values in measured.items()
            },
            "clips": found.rows(self.prompts, self.seeds, measured, self.written),
        }


def _write_videos(
    config: Config, folder: Path, key: str, prompts: Prompts, first: int, videos: Videos
) -> dict[int, str]:
    """Keep the first member's video of each prompt that the report shows; `first` is their place among all."""
    shown, written = min(config.videos - first, len(prompts)), {}
    if shown > 0:
        (folder / "samples" / key).mkdir(parents=True, exist_ok=True)
    for p in range(shown):
        name = f"samples/{key}/{prompts.ids[p]:04d}-0.mp4"
        video.write(folder / name, videos.frames[p * prompts.group], videos.fps, scale=config.scale)
        written[(first + p) * prompts.group] = name
    return written


class Evaluate:
    """Evaluation as a stage of its own; a step is a batch of clips, and the last one also measures."""

    note = ""

    def __init__(self, config: Config, context: Context) -> None:
        self.config, self.context = config, context
        self.spec, self.evaluation = StageSpec(), prepare(config, context.opened)
        prompts, whole = map(len, map(self.evaluation.under, config.samplers)), max(1, config.batch // config.members)
        self.steps = sum(-(-n // whole) for n in prompts)

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
