"""The best that weights can do at so many forwards a clip: which steps and guidance suit them, and how good they are.

A step with guidance costs two forwards, so at one budget each guidance has its number of steps. Settings are chosen on
one half of the prompts and judged on the other: the best of many is flattered by the prompts that chose it.
"""

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from reelign import config as configs
from reelign.batches import Prompts
from reelign.core import rng, stats
from reelign.errors import BadConfig, BadData, cut, shown
from reelign.files import digest, seal, write_text
from reelign.glance import PLAYGROUND
from reelign.playground import PIPELINE
from reelign.records import Cell, Chosen, Contest, Evaluation, Levels, Search
from reelign.runtime.work import Samples
from reelign.stages import evaluate
from reelign.stages.evaluate import Evaluation as Judging
from reelign.stages.evaluate import Sampler

GUIDANCES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What is tried where nothing else is asked for."""
FILE = "best.json"
FEWEST_PROMPTS = 12
"""Six in each half: of fewer nothing can be told."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is searched, by what, and on which prompts."""

    by: str
    """The measure that chooses."""
    budgets: Mapping[int, tuple[Sampler, ...]]
    """Samplers by the forwards that a clip costs."""
    choosing: Judging
    judging: Judging

    def clips(self, models: int) -> int:
        """How many are sampled for so many models."""
        cells = sum(len(samplers) for samplers in self.budgets.values())
        return models * (cells * self.choosing.clips + len(self.budgets) * self.judging.clips)


def plan(config: evaluate.Config, by: str, forwards: Sequence[int], guidances: Sequence[float] = GUIDANCES) -> Plan:
    """Read the prompts and lay out the cells.

    Args:
        config: of a recipe; its first sampler says the shift.
        by: the measure that chooses.
        forwards: budgets of a clip.
        guidances: what is tried at each.

    Raises:
        BadConfig: a budget that no sampler has, or a measure that nothing measures.
        BadData: too few prompts to halve.
    """
    measured = sorted({name for metric in config.asks for name in metric.names})
    if by not in measured:
        raise BadConfig(f"nothing measures {shown(by)}, by which to choose; measured: {cut(', '.join(measured), 300)}.")
    for budget in forwards:
        if budget < 4 or budget % 2:
            raise BadConfig(
                f"{budget} forwards a clip cannot be spent with and without guidance, which costs two forwards a step; "
                "give an even number from 4 on."
            )
    shift = config.samplers[0].shift
    budgets = {
        budget: tuple(
            configs.validate(Sampler, {"steps": budget if g == 1 else budget // 2, "shift": shift, "guidance": g})
            for g in dict.fromkeys(guidances)
        )
        for budget in dict.fromkeys(forwards)
    }
    whole = evaluate.prepare(config.model_copy(update={"videos": 0, "samplers": config.samplers[:1]}))
    if len(whole.prompts) < FEWEST_PROMPTS:
        raise BadData(
            f"there are {len(whole.prompts)} prompts, of which one half chooses and the other judges; give "
            f"{FEWEST_PROMPTS} or more."
        )
    choosing, judging = _halves(whole.prompts)
    return Plan(by, budgets, replace(whole, prompts=choosing), replace(whole, prompts=judging))


def _halves(prompts: Prompts) -> list[Prompts]:
    """Two halves by chance, the same for the same number: files of prompts may alternate between kinds."""
    generator = torch.Generator().manual_seed(rng.seed_for(0, "best", "halves"))
    order = torch.randperm(len(prompts), generator=generator).tolist()
    first, second = sorted(order[: len(order) // 2]), sorted(order[len(order) // 2 :])
    requests = prompts.requests
    return [Prompts(tuple(requests[i] for i in part), prompts.group) for part in (first, second)]


def fingerprint(weights: str, settings: Mapping[str, Any]) -> str:
    """What a model is: where it lies and, in short, what its weights hold and how it computes."""
    folder = PIPELINE if weights == PLAYGROUND else Path(weights).expanduser()
    files = {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*.safetensors"))}
    return f"{weights} {seal({**settings, 'files': files})[:12]}"


@dataclass(frozen=True, slots=True)
class Found:
    """What was chosen for weights at a budget, and its clips on the prompts that judge."""

    chosen: Chosen
    judged: Evaluation


def search(name: str, mark: str, source: Samples, plan: Plan, out: Path) -> Generator[int, None, list[Found]]:
    """Find the best of one model into `out/evaluations/best/<name>/`; what lies there already is not judged again.

    Args:
        name: what it is called.
        mark: its `fingerprint`.
        source: of its weights.
        plan: what is searched.
        out: the folder.

    Yields:
        How many more clips are judged.

    Returns:
        For each budget what was chosen.

    Raises:
        BadData: what lies there is of other weights or settings, or the measure applies to no clip.
    """
    result: list[Found] = []
    for forwards, samplers in plan.budgets.items():
        cells: list[tuple[Sampler, Evaluation]] = []
        for sampler in samplers:
            found = yield from _judged(name, mark, source, plan.choosing, sampler, out, "choosing")
            cells.append((sampler, found))
        known = [cell for cell in cells if cell[1].measures[plan.by].mean is not None]
        if not known:
            raise BadData(f"{plan.by} applies to no clip of {name}; choose by another measure.")
        sign = 1 if known[0][1].measures[plan.by].higher_is_better else -1
        best, _ = max(known, key=lambda cell: sign * (cell[1].measures[plan.by].mean or 0.0))
        end = yield from _judged(name, mark, source, plan.judging, best, out, "judging")
        tried = tuple(_cell(sampler, found, plan.by) for sampler, found in cells)
        told = {"model": name, "forwards": forwards, "sampler": best.recorded(), "tried": tried}
        result.append(Found(Chosen(**told, measures=end.measures), end))
    return result


def _cell(sampler: Sampler, found: Evaluation, by: str) -> Cell:
    summary = found.measures[by]
    return Cell(sampler=sampler.recorded(), mean=summary.mean, low=summary.low, high=summary.high, n=summary.n)


def _judged(
    name: str, mark: str, source: Samples, judging: Judging, sampler: Sampler, out: Path, half: str
) -> Generator[int, None, Evaluation]:
    """One cell, read where it is there; yields clips as they come and returns the evaluation."""
    label = f"best/{name}/{sampler.called}-{half}"
    path = out / "evaluations" / f"{label}.json"
    own = replace(judging, config=judging.config.model_copy(update={"samplers": (sampler,)}))
    if not path.is_file():
        done = 0
        for clips in evaluate.run(source, own, label, out, mark, frozenset()):
            yield clips - done
            done = clips
        return _read(path)
    found = _read(path)
    seeds = evaluate.seeds(own.config, own.prompts)
    texts = [request.text for request in own.prompts.requests for _ in range(own.prompts.group)]
    versions = {measure: metric.says.version for metric in own.metrics for measure in metric.names}
    same = (
        found.checkpoint == mark
        and dict(found.sampler) == sampler.recorded()
        and [(clip.seed, clip.prompt) for clip in found.clips] == list(zip(seeds, texts, strict=True))
        and {each: summary.version for each, summary in found.measures.items()} == versions
    )
    if not same:
        raise BadData(
            f"{shown(str(path))} is of other weights, prompts or measures; remove that folder, or give another --out."
        )
    yield own.clips
    return found


def _read(path: Path) -> Evaluation:
    return Evaluation.read(json.loads(path.read_bytes()), str(path))


def write(found: Sequence[Found], plan: Plan, out: Path) -> Search:
    """Put what was found into `out/best.json`, with the first model held against each later one at each budget."""
    contests = []
    for forwards in plan.budgets:
        first, *others = [each for each in found if each.chosen.forwards == forwards]
        contests += [_contest(first, other) for other in others]
    halves = {"chosen_on": len(plan.choosing.prompts), "judged_on": len(plan.judging.prompts)}
    chosen = tuple(each.chosen for each in found)
    result = Search(by=plan.by, chosen=chosen, contests=tuple(contests), **halves)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / FILE, json.dumps(result.dump(), ensure_ascii=False, indent=1))
    return result


def _contest(first: Found, other: Found) -> Contest:
    """Each at its best on the prompts that chose nothing, clip by clip from the same noise."""
    old, levels = first.judged.by_key, {}
    for name, summary in other.judged.measures.items():
        both = [
            (clip.prompt_id, before, after)
            for clip in other.judged.clips
            if (after := clip.measures.get(name)) is not None
            and (before := old[clip.key].measures.get(name)) is not None
        ]
        if len(both) < 2:
            continue
        apart = stats.over_prompts([after - before for _, before, after in both], [prompt for prompt, *_ in both])
        means = {"before": sum(b for _, b, _ in both) / len(both), "after": sum(a for *_, a in both) / len(both)}
        levels[name] = Levels(
            **means, difference=apart.estimate, low=apart.low, high=apart.high,
            higher_is_better=summary.higher_is_better,
        )  # fmt: skip
    ends = {"first": first.chosen.model, "other": other.chosen.model}
    return Contest(forwards=first.chosen.forwards, **ends, measures=levels)
