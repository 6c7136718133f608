"""Samples that stages have trained on, by step, with their rewards: how what is rewarded changes, and into what."""

from dataclasses import dataclass
from itertools import groupby

from reelign.records import Sample
from reelign.report import words
from reelign.report.clips import Badge, Shown, shown, size
from reelign.report.run import Run

EMBEDDED_MIB = 24
"""Most video of one stage's strip."""


@dataclass(frozen=True, slots=True)
class Strip:
    """A stage's samples by step, each a prompt with its clip, and how many steps there was no room for."""

    stage: str
    steps: tuple[tuple[int, tuple[tuple[str, Shown], ...]], ...]
    left_out: int


def strips(run: Run) -> tuple[Strip, ...]:
    """A strip for each stage that has kept samples; of many steps some, the first and the last among them."""
    found = []
    for stage, own in groupby(run.samples, key=lambda sample: sample.stage):
        steps = [(step, tuple(some)) for step, some in groupby(own, key=lambda sample: sample.step)]
        kept = _fitting(run, steps)
        frames = tuple((step, tuple(_frame(run, sample) for sample in some)) for step, some in kept)
        found.append(Strip(stage, frames, len(steps) - len(kept)))
    return tuple(found)


def _fitting(run: Run, steps: list[tuple[int, tuple[Sample, ...]]]) -> list[tuple[int, tuple[Sample, ...]]]:
    """As many steps as the page holds."""
    bytes_ = sum(size(run.video(sample)) for _, some in steps for sample in some)
    most = len(steps) if bytes_ <= EMBEDDED_MIB * 2**20 else int(len(steps) * EMBEDDED_MIB * 2**20 / bytes_)
    if most >= len(steps) or most < 2:
        return steps[: max(most, 1)]
    return [steps[round(k * (len(steps) - 1) / (most - 1))] for k in range(most)]


def _frame(run: Run, sample: Sample) -> tuple[str, Shown]:
    badges = tuple(
        Badge(name, words.badge(name, None), words.number(value), "plain" if value is not None else "none")
        for name, value in sample.rewards.items()
    )
    return sample.prompt, shown(sample.stage, sample, run.video(sample), badges)
