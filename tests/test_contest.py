"""The search for the best sampler: chosen on one half, judged on the other, and nothing judged twice."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from reelign import contest
from reelign.batches import Request, Videos
from reelign.core import rng
from reelign.errors import BadData
from reelign.sampling import SamplerConfig
from reelign.stages import evaluate


class Source:
    """Clips whose level is better the nearer guidance is to what suits the weights; noise is that of the seed."""

    def __init__(self, suits: float, gain: float = 0.0) -> None:
        self.suits, self.gain, self.asked = suits, gain, 0

    def sample(
        self, requests: Sequence[Request], seeds: Sequence[int], sampler: SamplerConfig, at_once: int
    ) -> Iterator[Videos]:
        del at_once
        self.asked += len(requests)
        noise = torch.stack([0.02 * rng.normal((1,), seed=seed) for seed in seeds])
        level = 0.5 + self.gain - 0.05 * abs(sampler.guidance - self.suits)
        yield Videos((level + noise).view(-1, 1, 1, 1, 1).expand(-1, 2, 3, 4, 4).contiguous(), 8.0)


def _plan(tmp_path: Path, prompts: int = 12, **more: Any) -> contest.Plan:
    (tmp_path / "p.txt").write_text("".join(f"prompt {n}\n" for n in range(prompts)))
    dataset = {"name": "prompt_file", "path": str(tmp_path / "p.txt")}
    metrics = ["tests.parts.mean_level:build"]
    config = evaluate.Config.model_validate({"dataset": dataset, "metrics": metrics, "batch": 64, **more})
    return contest.plan(config, "level", [8], (1.0, 2.0, 4.0))


def _search(name: str, source: Source, plan: contest.Plan, out: Path) -> list[contest.Found]:
    steps = contest.search(name, "toy", source, plan, out)
    told = 0
    while True:
        try:
            told += next(steps)
        except StopIteration as end:
            assert told == plan.clips(1)
            return end.value


def test_the_sampler_that_suits_is_found_at_equal_forwards(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    assert [(s.steps, s.guidance) for s in plan.budgets[8]] == [(8, 1.0), (4, 2.0), (4, 4.0)]
    for suits in (1.0, 2.0, 4.0):
        (found,) = _search(f"m{suits}", Source(suits), plan, tmp_path)
        assert found.chosen.sampler["guidance"] == suits
        assert len(found.chosen.tried) == 3


def test_what_chooses_does_not_judge(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    choosing, judging = set(plan.choosing.prompts.ids), set(plan.judging.prompts.ids)
    assert len(choosing) == len(judging) == 6
    assert not choosing & judging
    (found,) = _search("m", Source(2.0), plan, tmp_path)
    assert {clip.prompt_id for clip in found.judged.clips} == judging
    assert found.chosen.measures["level"].mean == pytest.approx(0.5, abs=0.03)
    # Halves are drawn, so that a file which alternates between two kinds gives some of both to each.
    assert {n % 2 for n in choosing} == {n % 2 for n in judging} == {0, 1}


def test_what_is_judged_is_not_judged_again(tmp_path: Path) -> None:
    plan, first = _plan(tmp_path), Source(2.0)
    whole = _search("m", first, plan, tmp_path)
    assert first.asked == plan.clips(1)
    again = Source(2.0)
    assert _search("m", again, plan, tmp_path) == whole
    assert again.asked == 0
    (tmp_path / "evaluations" / "best" / "m" / "s4g4-choosing.json").unlink()
    assert _search("m", again, plan, tmp_path) == whole
    assert again.asked == plan.choosing.clips


@pytest.mark.parametrize("change", ["checkpoint", "seed", "sampler"])
def test_what_lies_there_of_another_search_is_refused(tmp_path: Path, change: str) -> None:
    plan = _plan(tmp_path)
    _search("m", Source(2.0), plan, tmp_path)
    path = tmp_path / "evaluations" / "best" / "m" / "s4g4-choosing.json"
    content = json.loads(path.read_text())
    if change == "checkpoint":
        content["checkpoint"] = "others"
    elif change == "seed":
        content["clips"][0]["seed"] += 1
    else:
        content["sampler"]["shift"] = 1.0
    path.write_text(json.dumps(content))
    with pytest.raises(BadData, match=r"s4g4-choosing\.json' is of other weights, prompts or measures; remove"):
        _search("m", Source(2.0), plan, tmp_path)


def test_models_are_held_against_the_first_each_at_its_best_from_the_same_noise(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    found = [*_search("base", Source(4.0), plan, tmp_path), *_search("final", Source(1.0, gain=0.1), plan, tmp_path)]
    result = contest.write(found, plan, tmp_path)
    assert [chosen.sampler["guidance"] for chosen in result.chosen] == [4.0, 1.0]
    (held,) = result.contests
    assert (held.first, held.other, held.forwards) == ("base", "final", 8)
    level = held.measures["level"]
    assert level.difference == pytest.approx(0.1, abs=1e-6)
    assert level.low == pytest.approx(level.high, abs=1e-6)
    assert json.loads((tmp_path / "best.json").read_text()) == json.loads(json.dumps(result.dump()))


def test_too_few_prompts_are_not_halved(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="there are 11 prompts, of which one half chooses"):
        _plan(tmp_path, prompts=11)
