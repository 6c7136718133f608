"""Bake-offs to look at: sheets with known effects and known noise, and a tiny one that really runs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.bakeoff.toys import Watcher, tree

from reelign import config as configs
from reelign.bakeoff.results import Measure, Series, Sheet
from reelign.bakeoff.spec import Spec
from reelign.core import rng
from reelign.records import Check


@pytest.fixture
def spec_tree(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`spec_tree(budget=..., ...)`: a bake-off below the test's own folder, as a file would say it."""
    return lambda **changes: tree(tmp_path, **changes)


@pytest.fixture
def spec(spec_tree: Callable[..., dict[str, Any]]) -> Callable[..., Spec]:
    """`spec(budget=..., ...)`: the same, checked."""
    return lambda **changes: configs.validate(Spec, spec_tree(**changes))


@pytest.fixture
def watcher() -> type[Watcher]:
    """The class of who watches a bake-off."""
    return Watcher


def synthetic(
    levels: Mapping[str, tuple[float, ...]],
    *,
    seeds: int = 3,
    prompts: int = 40,
    members: int = 2,
    noise: tuple[float, float, float] = (0.02, 0.2, 0.3),
    rate: bool = False,
    trial: int = 0,
    budget: float = 1000.0,
    higher_is_better: bool = True,
) -> Sheet:
    """Entries with true mean levels at each check.

    Args:
        levels: of each entry at each check; the start, which all share, first.
        seeds: of training.
        prompts: that judge.
        members: clips of each prompt.
        noise: standard deviations of a training seed, of a prompt (the same for all entries) and of a clip.
        rate: whether clips are 1 where their value is above 0.5, else 0.
        trial: names the noise.
        budget: in forward-units; seconds are a tenth of them.
        higher_is_better: of the one measure, called "level".
    """
    checks = len(next(iter(levels.values())))
    of_seed, of_prompt, of_clip = noise
    clips = prompts * members
    prompt = torch.arange(prompts).repeat_interleave(members)
    common = of_prompt * rng.normal((prompts,), seed=rng.seed_for(trial, "prompt"), dtype=torch.float64)[prompt]
    start = levels[next(iter(levels))][0]
    first = start + common + of_clip * rng.normal((clips,), seed=rng.seed_for(trial, "start"), dtype=torch.float64)
    units = torch.linspace(0, budget, checks, dtype=torch.float64)[:, None].expand(-1, seeds).clone()
    series = {}
    for label, means in levels.items():
        luck = of_seed * rng.normal((seeds, 1), seed=rng.seed_for(trial, label), dtype=torch.float64)
        rows = [first.expand(seeds, -1)]
        for check, mean in enumerate(means[1:], start=1):
            own = rng.normal((seeds, clips), seed=rng.seed_for(trial, label, check), dtype=torch.float64)
            rows.append(mean + luck + common + of_clip * own)
        values = torch.stack(rows)
        runs = tuple(tuple(_check(c, u) for c, u in enumerate(column)) for column in units.T.tolist())
        values = (values > 0.5).double() if rate else values
        series[label] = Series(label, {"level": values}, units, units / 10, runs)
    about = Measure("level", "how high it is", higher_is_better, False, rate)
    return Sheet({"level": about}, tuple(range(seeds)), prompt, members, series, (), 0)


def _check(check: int, units: float) -> Check:
    shares = {"seconds": 10, "rollout_s": 20, "decode_s": 100, "reward_s": 100, "update_s": 25}
    spent = {name: units / share for name, share in shares.items()}
    return Check(check=check, evaluation="", step=check, units=int(units), **spent)


@pytest.fixture
def sheet() -> Callable[..., Sheet]:
    """`sheet({"a": (0.0, 0.5), ...}, ...)`: see `synthetic`."""
    return synthetic
