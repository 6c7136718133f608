"""Train on what the policy itself samples: roll out, score, compare, update."""

import time
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from pydantic import Field, field_validator, model_validator

from reelign import config as configs
from reelign import parts
from reelign.batches import Credited, Prompts
from reelign.core import rng
from reelign.errors import BadConfig
from reelign.parts import AnyDataset, AnyMethod, PartConfig
from reelign.protocols import Dataset, Method
from reelign.runtime.learner import LearnerConfig
from reelign.runtime.local import Panel, Weighted
from reelign.sampling import SamplerConfig
from reelign.stages._context import Context, Report, StageConfig


class Config(StageConfig):
    """An online stage."""

    name: str = "online"
    steps: int = Field(ge=1)
    """Iterations: one rollout and its updates."""
    prompts: int = Field(default=8, ge=1)
    """Prompts an iteration."""
    group: int = Field(default=8, ge=2)
    """Samples of each prompt."""
    updates: int = Field(default=1, ge=1)
    """Optimizer steps on each rollout. With one, every ratio is exactly 1 and the clip never acts; from the second on
    the policy has moved away from the one that sampled, and the clip holds it near."""
    dataset: AnyDataset
    sampler: SamplerConfig = SamplerConfig()
    """Its guidance also holds for the update."""
    method: AnyMethod
    rewards: tuple[Weighted, ...] = Field(min_length=1)
    learner: LearnerConfig = LearnerConfig()

    @field_validator("method")
    @classmethod
    def _consumes_what_it_samples(cls, method: PartConfig) -> PartConfig:
        if parts.build("method", method).consumes is not Credited:
            raise ValueError(f"{method.name!r} trains on clips or pairs that exist; give it a stage 'offline'")
        return method

    @model_validator(mode="after")
    def _can_explore(self) -> "Config":
        try:
            parts.build("method", self.method).explore(self.sampler.steps, Prompts((), ()), 0)
        except BadConfig as error:
            raise ValueError(str(error).rstrip(".")) from error
        return self


class Online:
    """Roll out, score, credit, update, report."""

    note = ""

    def __init__(self, config: Config, context: Context) -> None:
        """Build dataset, method and rewards, and start the stage's optimizer."""
        self.config, self.context, self.steps = config, context, config.steps
        self.dataset: Dataset = parts.build("dataset", config.dataset)
        self.method: Method = parts.build("method", config.method)
        self.panel = Panel.build(config.rewards)
        context.runtime.begin_stage(config.learner, self.method.needs)

    def run(self, start: int) -> Iterator[Report]:
        """Iterations `start` to the end."""
        config, runtime, seed = self.config, self.context.runtime, self.context.seed
        first = rng.integer(1 << 20, seed=rng.seed_for(seed, "prompts"))
        for step in range(start, config.steps):
            clock = _Clock()
            prompts = self.dataset.prompts(config.prompts, config.group, first + step)
            exploration = self.method.explore(config.sampler.steps, prompts, rng.seed_for(seed, "explore", step))
            trajectories = runtime.rollout(prompts, config.sampler, exploration, rng.seed_for(seed, "rollout", step))
            clock.lap("rollout/wall_s")
            rewards, weights = runtime.score(trajectories, self.panel)
            clock.lap("reward/wall_s")
            batch = self.method.credit(trajectories, rewards, weights)
            where = f"step {step} of stage {self.context.label}"
            metrics = runtime.update(self.method, batch, rng.seed_for(seed, "noise", step), where)
            noises = [rng.seed_for(seed, "noise", step, again) for again in range(1, config.updates)]
            later = [runtime.update(self.method, batch, noise, where) for noise in noises]
            metrics |= {f"again/{name}": fmean(m[name] for m in later) for name in (later[0] if later else ())}
            clock.lap("update/wall_s")
            named = {f"online/{name}": value for name, value in {**metrics, **batch.metrics}.items()}
            scored = {f"online/reward/{name}": values.mean().item() for name, values in rewards.items()}
            spread = {f"online/spread/{name}": values.std(dim=1).mean().item() for name, values in rewards.items()}
            total = sum(weights[name] * values.mean().item() for name, values in rewards.items()) / sum(
                weights.values()
            )
            counts = {"prompts": config.prompts, "rollouts": config.prompts * config.group}
            yield Report(step, {"online/reward": total, **scored, **spread, **named, **clock.laps}, counts)

    def describe(self) -> dict[str, Any]:
        """For the ledger."""
        pairs = zip(self.config.rewards, self.panel.rewards, strict=True)
        rewards = {w.reward.name: {"weight": w.weight, "version": built.version} for w, built in pairs}
        return {"method": self.config.method.name, "dataset": configs.dump(self.config.dataset), "rewards": rewards}


class _Clock:
    """Wall seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def build(config: Config, context: Context) -> Online:
    """Start an online stage."""
    return Online(config, context)
