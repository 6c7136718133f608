"""What the finished runs of a bake-off left, as tensors."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reelign.bakeoff.one import RESULT, Run
from reelign.bakeoff.run import all_runs
from reelign.bakeoff.spec import Spec
from reelign.errors import BadData, UserError
from reelign.records import Check, Evaluation


@dataclass(frozen=True, slots=True)
class Measure:
    """What is known of a held-out measure; a `rate` is 0 or 1 on every clip, so that its mean is a share."""

    name: str
    description: str
    higher_is_better: bool
    trained_on: bool
    rate: bool


@dataclass(frozen=True, slots=True)
class Series:
    """An entry's runs: checks `c` of seeds `s`, and on each clip `n` its measures, NaN where one does not apply.

    A run that stopped before its budget is judged where the others are: its units and seconds go on as if it idled.
    """

    label: str
    values: dict[str, Float[Tensor, "c s n"]]
    units: Float[Tensor, "c s"]
    seconds: Float[Tensor, "c s"]
    runs: tuple[tuple[Check, ...], ...]
    """The checks of each seed's run, as written."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """All entries that can be compared, on the seeds that all of them have finished."""

    measures: dict[str, Measure]
    seeds: tuple[int, ...]
    prompt: Int[Tensor, " n"]
    """Which prompt each clip belongs to, from 0 on."""
    members: int
    series: dict[str, Series]
    missing: tuple[str, ...]
    """Labels without a finished run."""
    spare: int
    """Finished runs that are left out because not all entries have finished their seed."""

    @property
    def prompts(self) -> int:
        """How many prompts judge."""
        return int(self.prompt.max()) + 1


def load(spec: Spec) -> Sheet:
    """Read the finished runs of a bake-off.

    Raises:
        UserError: no run is finished, or a file does not read.
    """
    finished: dict[str, dict[int, Run]] = {label: {} for label in spec.labels}
    for run in all_runs(spec):
        if run.finished:
            finished[run.entry.label][run.seed] = run
    there = {label: runs for label, runs in finished.items() if runs}
    seeds = tuple(seed for seed in spec.seeds if all(seed in runs for runs in there.values()))
    if not there or not seeds:
        raise UserError(f"no seed of the bake-off {spec.name!r} is finished yet; run it without --only.")
    read = {label: [_read(runs[seed]) for seed in seeds] for label, runs in there.items()}
    first = next(iter(read.values()))[0][1][0]
    ids = list(dict.fromkeys(clip.prompt_id for clip in first.clips))
    series = {label: _series(spec, label, runs, first) for label, runs in read.items()}
    return Sheet(
        measures={name: _measure(name, first, series) for name in spec.ranked},
        seeds=seeds,
        prompt=torch.tensor([ids.index(clip.prompt_id) for clip in first.clips]),
        members=first.members,
        series=series,
        missing=tuple(label for label in spec.labels if label not in there),
        spare=sum(len(runs) for runs in there.values()) - len(there) * len(seeds),
    )


def _read(run: Run) -> tuple[tuple[Check, ...], list[Evaluation]]:
    path = run.folder / RESULT
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        checks = tuple(Check.read(json.loads(line), f"{path}, line {n}") for n, line in enumerate(lines, start=1))
        judged = ((run.folder / check.evaluation, check.evaluation) for check in checks)
        return checks, [Evaluation.read(json.loads(path.read_bytes()), name) for path, name in judged]
    except (OSError, BadData, json.JSONDecodeError) as error:
        raise UserError(
            f"the results in {str(run.folder)!r} do not read; remove that folder to run it again."
        ) from error


def _series(
    spec: Spec, label: str, runs: list[tuple[tuple[Check, ...], list[Evaluation]]], first: Evaluation
) -> Series:
    keys = [clip.key for clip in first.clips]
    values: dict[str, list[list[list[float]]]] = {name: [] for name in spec.ranked}
    for check in range(spec.checks):
        for name, column in values.items():
            column.append([_column(evaluations[check], name, keys) for _, evaluations in runs])
    due = torch.linspace(0, spec.budget, spec.checks, dtype=torch.float64)[:, None]
    units, seconds = (_table([checks for checks, _ in runs], name) for name in ("units", "seconds"))
    stopped = torch.tensor([[bool(checks[c].stopped) for checks, _ in runs] for c in range(spec.checks)])
    # A stopped run would have stood at its checks at the pace it had.
    return Series(
        label=label,
        values={name: torch.tensor(column, dtype=torch.float64) for name, column in values.items()},
        units=torch.where(stopped, torch.maximum(units, due), units),
        seconds=torch.where(stopped, seconds * (due / units.clamp_min(1)).clamp_min(1), seconds),
        runs=tuple(checks for checks, _ in runs),
    )


def _table(runs: list[tuple[Check, ...]], name: str) -> Float[Tensor, "c s"]:
    return torch.tensor([[float(getattr(check, name)) for check in row] for row in zip(*runs, strict=True)]).double()


def _column(evaluation: Evaluation, name: str, keys: list[tuple[int, int]]) -> list[float]:
    clips = evaluation.by_key
    found = [clips[key].measures.get(name) for key in keys]
    return [math.nan if value is None else value for value in found]


def _measure(name: str, first: Evaluation, series: Mapping[str, Series]) -> Measure:
    about: Any = first.measures[name]
    values = torch.cat([each.values[name].flatten() for each in series.values()])
    known = values[~torch.isnan(values)]
    rate = bool(((known == 0) | (known == 1)).all())
    return Measure(name, about.description, about.higher_is_better, about.trained_on, rate)
