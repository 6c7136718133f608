"""Held-out evaluation: the same prompts and seeds for every checkpoint, measured clip by clip, with intervals."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from reelign import parts, sampling, video
from reelign.batches import Prompts, Videos
from reelign.core import rng, stats
from reelign.files import write_text
from reelign.parts import AnyDataset, AnyMetric
from reelign.protocols import Metric, VideoModel
from reelign.sampling import SamplerConfig
from reelign.stages._context import Context, Report, StageConfig

Json = dict[str, Any]


class Config(StageConfig):
    """What is measured, on which prompts."""

    name: str = "evaluate"
    """The kind of stage."""
    dataset: AnyDataset
    """Held-out prompts: never those of a training stage."""
    members: int = Field(default=2, ge=1)
    """Samples of each prompt; diversity needs at least 2."""
    sampler: SamplerConfig = SamplerConfig(guidance=3.0)
    metrics: tuple[AnyMetric, ...] = Field(min_length=1)
    """What is measured on each clip."""
    seed: int = 0
    """Of the evaluation's noise; the same in every run, so that runs can be compared in pairs."""
    batch: int = Field(default=32, ge=1)
    """Samples in one forward pass."""
    videos: int = Field(default=12, ge=0)
    """The first so many prompts keep their first member's video for the report."""
    scale: int = Field(default=1, ge=1)
    """Enlargement of those videos, for tiny clips."""


def seeds(config: Config, prompts: Prompts) -> list[int]:
    """Noise seeds by prompt and member, the same for every checkpoint."""
    return [rng.seed_for(config.seed, "evaluate", i, m) for i in prompts.ids for m in range(prompts.group)]


def prompts_of(config: Config) -> Prompts:
    """All held-out prompts, `members` of each."""
    drawn = parts.build("dataset", config.dataset).all_prompts()
    return Prompts(drawn.texts, drawn.ids, config.members, drawn.slices)


def run(
    model: VideoModel, config: Config, label: str, folder: Path, checkpoint: str, trained_on: frozenset[str]
) -> Iterator[float]:
    """Evaluate into `folder/evaluations/<label>.json`; yields the finished share as it goes.

    Args:
        model: with the weights to judge.
        config: what to measure.
        label: "base" or a stage's label.
        folder: the run folder.
        checkpoint: where the weights came from, for the record.
        trained_on: names of rewards that train in this run; measures and metrics of the same name are flagged.
    """
    prompts = prompts_of(config)
    metrics: list[Metric] = [parts.build("metric", m) for m in config.metrics]
    own_seeds, texts = seeds(config, prompts), prompts.repeated
    frames: list[Tensor] = []
    for cut in sampling.chunks(len(texts), config.batch):
        x0 = sampling.sample(model, texts[cut], own_seeds[cut], config.sampler, config.batch)
        frames.append(model.decode(x0).frames.cpu())
        yield cut.stop / len(texts)
    videos = Videos(torch.cat(frames), model.geometry.fps)
    measures: dict[str, Tensor] = {}
    about: dict[str, tuple[bool, str]] = {}
    flagged: set[str] = set(trained_on)
    for part, metric in zip(config.metrics, metrics, strict=True):
        flagged |= set(metric.higher_is_better) if "." in part.name and part.name in trained_on else set()
        for name, values in metric(videos, texts).items():
            measures[name] = values.cpu()
            about[name] = (metric.higher_is_better[name], metric.description[name])
    written = _write_videos(config, folder, label, prompts, videos)
    content = {
        "label": label,
        "checkpoint": checkpoint,
        "sampler": config.sampler.model_dump(),
        "members": config.members,
        "measures": {
            name: _summary(values, prompts, *about[name], name in flagged) for name, values in measures.items()
        },
        "clips": _rows(prompts, own_seeds, measures, written),
    }
    path = folder / "evaluations" / f"{label}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1))


def _write_videos(config: Config, folder: Path, label: str, prompts: Prompts, videos: Videos) -> dict[int, str]:
    target = folder / "samples" / label
    target.mkdir(parents=True, exist_ok=True)
    written = {}
    for p in range(min(config.videos, len(prompts.texts))):
        index = p * prompts.group
        name = f"samples/{label}/{prompts.ids[p]:04d}-0.mp4"
        video.write(folder / name, videos.frames[index], videos.fps, scale=config.scale)
        written[index] = name
    return written


def _summary(values: Tensor, prompts: Prompts, higher: bool, description: str, trained_on: bool) -> Json:
    known = ~torch.isnan(values)
    groups = torch.arange(len(prompts.texts)).repeat_interleave(prompts.group)
    base = {"n": int(known.sum()), "higher_is_better": higher, "description": description, "trained_on": trained_on}
    if not bool(known.any()):
        return {"mean": None, "low": None, "high": None, **base}
    estimate = stats.mean_interval(values[known], seed=0, groups=groups[known])
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
                "prompt": prompts.texts[p],
                "prompt_id": prompts.ids[p],
                "member": member,
                "seed": seed,
                "slices": prompts.slices[p] if prompts.slices else {},
                "measures": values,
                "video": written.get(index),
            }
        )
    return rows


class Evaluate:
    """Evaluation as a stage of its own."""

    steps = 1
    note = ""

    def __init__(self, config: Config, context: Context) -> None:
        """Keep the config."""
        self.config, self.context = config, context

    def run(self, start: int) -> Iterator[Report]:
        """One step: the whole evaluation."""
        if start == 0:
            for _ in run(
                self.context.runtime.model, self.config, self.context.label, self.context.folder, "present", frozenset()
            ):
                pass
            yield Report(0, {})

    def describe(self) -> Json:
        """For the ledger."""
        return {"method": "evaluate", "dataset": self.config.dataset.model_dump(mode="json"), "rewards": {}}


def build(config: Config, context: Context) -> Evaluate:
    """Start an evaluation stage."""
    return Evaluate(config, context)
