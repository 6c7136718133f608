"""How much of a GRPO iteration is not its model calls: iteration wall time over the sum of the same calls alone.

One iteration of the demo's GRPO stage is recorded call by call; then the recorded calls are timed alone, in turn with
whole iterations, in one process, because the machine's speed drifts. Prompts are encoded once and then remembered, so
the text encoder is timed where it was called. Prints the median of the pairs' ratios with its 95 % bootstrap interval,
and the ratio of the fastest iteration to the fastest calls, which lie apart in time; then the same with the rewards'
own calls added, which is what is left of an iteration for sampling, credit, loss and optimizer.

    python benchmarks/overhead.py [--repeats 120] [--set stages.1.method.tail=9 ...]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from scipy import stats

from reelign import config as configs
from reelign import driver, parts
from reelign.batches import Request, Videos
from reelign.panel import Panel
from reelign.playground import demo
from reelign.runtime.local import Local, device
from reelign.stage import Context
from reelign.stages import online


@dataclass
class Call:
    """One recorded model call."""

    name: str
    args: tuple
    gradient: bool


class Recorder:
    """A model that notes its calls while `calls` is a list."""

    def __init__(self, model):
        self.model, self.calls, self.encoding = model, None, 0.0

    def __getattr__(self, name):
        return getattr(self.model, name)

    def velocity(self, *args):
        if self.calls is not None:
            self.calls.append(Call("velocity", args, torch.is_grad_enabled()))
        return self.model.velocity(*args)

    def encode(self, requests, geometry=None):
        began = time.perf_counter()
        encoded = self.model.encode(requests, geometry)
        self.encoding += time.perf_counter() - began
        return encoded

    def decode(self, x0, condition) -> Videos:
        if self.calls is not None:
            self.calls.append(Call("decode", (x0, condition), gradient=False))
        return self.model.decode(x0, condition)


def alone(model, calls: list[Call]) -> float:
    """Seconds that the calls take with nothing between them; a call with gradient also runs its backward pass."""
    began = time.perf_counter()
    for call in calls:
        if call.gradient:
            out = model.velocity(*call.args)
            out.backward(torch.ones_like(out))
        else:
            with torch.no_grad():
                getattr(model, call.name)(*call.args)
    spent = time.perf_counter() - began
    model.network.zero_grad(set_to_none=True)
    return spent


def scoring(panel: Panel, videos: Videos, requests: Sequence[Request], where: str) -> float:
    """Seconds that rewards take to score videos they have not seen."""
    unseen = Videos(videos.frames.clone(), videos.fps)
    began = time.perf_counter()
    panel.score(unseen, requests, where)
    return time.perf_counter() - began


def middle(walls: list[float], sums: list[float]) -> tuple[float, float, float]:
    """Median of the pairs' ratios, and its 95 % bootstrap interval."""
    ratios = np.array(walls) / np.array(sums)
    found = stats.bootstrap((ratios,), np.median, method="percentile", rng=0).confidence_interval
    return float(np.median(ratios)), float(found.low), float(found.high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=120)
    parser.add_argument("--set", action="append", default=[], help="key=value on the demo's recipe")
    options = parser.parse_args()
    repeats = options.repeats
    watched = mock.patch.object(Panel, "score", autospec=True, side_effect=Panel.score)
    with tempfile.TemporaryDirectory() as folder, watched as score, ExitStack() as opened:
        data = Path(folder) / "data"
        demo.write_data(data, clips=8, prompts=64, judged=8)
        recipe = configs.validate(driver.Recipe, configs.override(demo.recipe(data), options.set))
        stage = next(s for s in recipe.stages if isinstance(s, online.Config))
        stage = stage.model_copy(update={"steps": 1 + 2 * repeats})
        model = Recorder(parts.build("model", recipe.model, device(recipe.runtime)))
        built = online.build(stage, Context(0, Path(folder), "grpo"))
        iterations = built.run(opened.enter_context(Local(model).stage(built.spec)), 0)
        next(iterations)  # warm-up: text features, allocator
        walls, sums, judged = [], [], []
        for _ in range(repeats):
            model.calls, model.encoding = [], 0.0
            began = time.perf_counter()
            next(iterations)
            walls.append(time.perf_counter() - began)
            calls, model.calls = model.calls, None
            sums.append(model.encoding + alone(model.model, calls))
            judged.append(sums[-1] + scoring(*score.call_args.args, **score.call_args.kwargs))
    result = {
        "iteration_s": statistics.median(walls),
        "model_calls_alone_s": statistics.median(sums),
        "ratio": middle(walls, sums),
        "ratio_of_fastest": min(walls) / min(sums),
        "rewards_alone_s": statistics.median(j - s for j, s in zip(judged, sums, strict=True)),
        "ratio_with_rewards": middle(walls, judged),
        "ratio_of_fastest_with_rewards": min(walls) / min(judged),
        "calls": len(calls),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
