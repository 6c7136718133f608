"""What each way of not computing twice saves: network passes counted and iterations timed, with and without.

The demo's GRPO iteration runs in several forms that learn exactly the same (tests/engines show it). Forms take turns in
one process, because the machine's speed drifts; the fastest of each counts. A pass of one sample is a unit, its
backward pass two.

    python benchmarks/reuse.py [--repeats 8]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from reelign import config as configs
from reelign import driver, parts, rollouts, sampling
from reelign.models._text import TextFeatures
from reelign.playground import demo
from reelign.rollouts import Exploration
from reelign.runtime.local import Local, device
from reelign.runtime.plan import PassesConfig
from reelign.stage import Context
from reelign.stages import online
from reelign.store import Memory


@dataclass
class Units:
    """What a model was asked to compute."""

    passes: int = 0
    gradient: int = 0

    @property
    def total(self) -> int:
        return self.passes + 3 * self.gradient


class Counting:
    """A model that counts the samples that pass its network."""

    def __init__(self, model, units: Units):
        self.model, self.units = model, units

    def __getattr__(self, name):
        return getattr(self.model, name)

    def velocity(self, x, sigma, condition, guidance=1.0):
        n = len(x) * (1 if guidance == 1 else 2)
        if torch.is_grad_enabled():
            self.units.gradient += n
        else:
            self.units.passes += n
        return self.model.velocity(x, sigma, condition, guidance)


@contextmanager
def separate_prefixes() -> Iterator[None]:
    """Every member takes the deterministic steps before its window by itself."""
    whole = rollouts._takeoff

    def takeoff(course, prompts, condition, exploration: Exploration, seed):
        flight = whole(course, prompts, condition, replace(exploration, first=(0,) * len(prompts)), seed)
        until = torch.tensor(exploration.first).repeat_interleave(prompts.group)
        sampling.advance(course, flight, until)
        return flight

    rollouts._takeoff = takeoff
    try:
        yield
    finally:
        rollouts._takeoff = whole


@contextmanager
def second_old_pass() -> Iterator[None]:
    """The log-probabilities of the sampling weights are computed again before the update."""
    whole = online.Online._learn

    def learn(self, work, batch, step):
        t = batch.trajectories
        with torch.no_grad():
            for k in range(len(t.x)):
                for cut in rollouts.cuts(t, self.config.learner.micro_batch):
                    at = t.x[k, cut], t.sigma[k, cut], t.sigma_next[k, cut]
                    rollouts.transit(work.model, t, *at, t.condition[cut])
        return whole(self, work, batch, step)

    online.Online._learn = learn
    try:
        yield
    finally:
        online.Online._learn = whole


@contextmanager
def no_text_cache() -> Iterator[None]:
    """Each use of a text encodes it again."""
    whole = TextFeatures.__call__
    TextFeatures.__call__ = lambda self, texts, store: whole(self, texts, Memory(0))
    try:
        yield
    finally:
        TextFeatures.__call__ = whole


@contextmanager
def nothing() -> Iterator[None]:
    yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=8)
    repeats = parser.parse_args().repeats
    forms: dict[str, tuple[Callable, dict]] = {
        "demo": (nothing, {}),
        "without kept graphs": (nothing, {"passes": PassesConfig()}),
        "without a shared prefix": (separate_prefixes, {"passes": PassesConfig()}),
        "with a second old-log-prob pass": (second_old_pass, {"passes": PassesConfig()}),
        "without a text cache": (no_text_cache, {}),
        "with guidance 3": (nothing, {"guidance": 3.0}),
    }
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        demo.write_data(data, clips=8, prompts=64, judged=8)
        recipe = configs.validate(driver.Recipe, demo.recipe(data))
        stage = next(s for s in recipe.stages if isinstance(s, online.Config))
        model = parts.build("model", recipe.model, device(recipe.runtime))
        weights = {n: p.detach().clone() for n, p in model.network.named_parameters()}
        seconds: dict[str, list[float]] = {name: [] for name in forms}
        units = {name: Units() for name in forms}
        for repeat in range(repeats + 1):
            for name, (way, changes) in forms.items():
                with torch.no_grad():
                    for n, p in model.network.named_parameters():
                        p.copy_(weights[n])
                units[name] = Units()
                sampler = stage.sampler.model_copy(update={"guidance": changes.get("guidance", 1.0)})
                update = {"steps": repeat + 1, "sampler": sampler}
                update |= {"passes": changes["passes"]} if "passes" in changes else {}
                built = online.build(stage.model_copy(update=update), Context(0, Path(folder), "grpo"))
                with way(), Local(Counting(model, units[name])).stage(built.spec) as work:
                    began = time.perf_counter()
                    # The same iteration number for all forms of a round: the same prompts and windows.
                    next(built.run(work, repeat))
                    seconds[name].append(time.perf_counter() - began)
    rows = []
    for name in forms:
        fastest = min(seconds[name][1:])
        rows.append(
            {
                "form": name,
                "passes": units[name].passes,
                "passes_with_gradient": units[name].gradient,
                "units": units[name].total,
                "units_ratio": round(units[name].total / units["demo"].total, 3),
                "fastest_s": round(fastest, 3),
                "time_ratio": round(fastest / min(seconds["demo"][1:]), 3),
            }
        )
    print(json.dumps({"threads": torch.get_num_threads(), "forms": rows}, indent=1))


if __name__ == "__main__":
    main()
