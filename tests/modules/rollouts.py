"""Methods with modules, and scored rollouts that have rewards and nothing else, for tests of modules."""

import math
from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from reelign import parts
from reelign.batches import Condition, Geometry, Prompts, Request, Scored, Trajectories
from reelign.engines.slots import Demand
from reelign.sampling import SamplerConfig

UNIT = (0.0, 1.0)


def build(*modules: dict[str, Any], method: str = "grpo", **settings: Any) -> Any:
    """A method with modules as a recipe gives them; `scale="group"` is its default here, for sums done by hand."""
    return parts.build("method", configured(*modules, method=method, **settings))


def configured(*modules: dict[str, Any], method: str = "grpo", **settings: Any) -> Any:
    """The Config of such a method."""
    own = {"scale": "group", **settings} if method == "grpo" else settings
    return parts.configure("method", {"name": method, "modules": list(modules), **own})


def never(*_: Any) -> Any:
    """A score or rescore that no test expects to be asked."""
    raise AssertionError("nothing should be scored here")


def demand(rewards: Mapping[str, tuple[float, float]], group: int = 4) -> Demand:
    """What a stage with these rewards asks."""
    return Demand(SamplerConfig(steps=6), 2, group, 1, 32, dict(rewards))


def scored(
    rewards: dict[str, Tensor],
    weights: dict[str, float] | None = None,
    *,
    texts: tuple[str, ...] | None = None,
    ids: tuple[int, ...] | None = None,
    seen: dict[str, Tensor] | None = None,
) -> Scored:
    """Rewards [p g] of a rollout that recorded nothing."""
    n, group = next(iter(rewards.values())).shape
    texts = texts or tuple(f"prompt {i}" for i in range(n))
    empty, column = torch.zeros(0, n * group, 1), torch.zeros(0, n * group)
    index = torch.zeros(0, n * group, dtype=torch.long)
    record = Trajectories(
        prompts=Prompts(
            tuple(Request(text, i) for text, i in zip(texts, ids or range(len(texts)), strict=True)), group
        ),
        condition=Condition(Geometry(1, 1, 1, 1.0, (1,)), {"text": (torch.zeros(0),) * (n * group)}),
        x0=torch.zeros(n * group, 1),
        x=empty,
        x_next=empty,
        sigma=column,
        sigma_next=column,
        log_prob=column,
        mean=empty,
        std=column,
        kind="flow",
        eta=0.7,
        guidance=1.0,
        table=torch.zeros(2),
        index=index,
    )
    return Scored(
        record,
        rewards,
        weights or {name: 1.0 for name in rewards if "/" not in name},
        seen or {},
    )


def advantages(method: Any, given: Scored) -> list[list[float]]:
    """What a method makes of rewards, by prompt and member."""
    found = method.credit(given).advantage
    return found.reshape(-1, given.trajectories.prompts.group).tolist()


def standard(row: list[float]) -> list[float]:
    """Deviations from the mean in units of the Bessel standard deviation; zeros for equal numbers."""
    if max(row) == min(row):
        return [0.0] * len(row)
    return [(r - fmean(row)) / (stdev(row) + 1e-4) for r in row]


def sigmoid(x: float) -> float:
    """The logistic function."""
    return 1 / (1 + math.exp(-x))
