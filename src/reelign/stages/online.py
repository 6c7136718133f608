"""Train on what the policy itself samples: roll out, score, compare, update."""

import time
from collections.abc import Iterator
from functools import partial
from statistics import fmean
from typing import Any

from pydantic import Field, field_validator, model_validator

from reelign import config as configs
from reelign import judges, parts
from reelign.batches import Credited, Prompts, Scored
from reelign.core import rng
from reelign.engines.slots import Demand
from reelign.errors import BadConfig
from reelign.panel import Panel, Weighted
from reelign.parts import AnyDataset, AnyMethod, PartConfig
from reelign.protocols import Dataset, OnlineMethod
from reelign.runtime.learner import LearnerConfig
from reelign.sampling import Exploration, SamplerConfig
from reelign.stage import Context, Report, StageConfig


class Config(StageConfig):
    """An online stage."""

    name: str = "online"
    """The kind of stage."""
    steps: int = Field(ge=1, le=10**9)
    """Iterations: one rollout and its updates."""
    prompts: int = Field(default=8, ge=1, le=10**6)
    """Prompts an iteration."""
    group: int = Field(default=8, ge=2, le=10**4)
    """Samples of each prompt."""
    updates: int = Field(default=1, ge=1, le=10**4)
    """Optimizer steps on each rollout. With one, every ratio is exactly 1 and the clip never acts; from the second on
    the policy has moved away from the one that sampled, and the clip holds it near."""
    dataset: AnyDataset
    """Where prompts come from."""
    sampler: SamplerConfig = SamplerConfig()
    """Its guidance also holds for the update."""
    method: AnyMethod
    """How credit and loss are made of rewards."""
    rewards: tuple[Weighted, ...] = Field(min_length=1)
    """What is scored; each may have a weight, 1 by default."""
    learner: LearnerConfig = LearnerConfig()

    waves: int = Field(default=1, ge=1)
    """Parts of a rollout: while one is on its way, the one before is decoded and scored in the background. For machines
    with cores (or a device) to spare; on two cores they only get in each other's way."""
    retain: bool = False
    """Keep the rollout's graphs for the update, which then needs no forward pass of its own: a seventh less to compute
    in the demo, at the price of holding the activations of all recorded steps. Only with one update a rollout."""

    @field_validator("method")
    @classmethod
    def _consumes_what_it_samples(cls, method: PartConfig) -> PartConfig:
        try:
            built = parts.build("method", method)
        except BadConfig as error:
            raise ValueError(str(error).rstrip(".")) from error
        if built.consumes is not Credited:
            raise ValueError(f"{method.name!r} trains on clips or pairs that exist; give it a stage 'offline'")
        return method

    @model_validator(mode="after")
    def _can_be_done(self) -> "Config":
        method: OnlineMethod = parts.build("method", self.method)
        try:
            method.check(self.demand())
        except BadConfig as error:
            raise ValueError(str(error).rstrip(".")) from error
        if self.retain and self.updates > 1:
            raise ValueError(f"retain keeps a graph for one update, but updates is {self.updates}; use one of the two")
        if self.retain and self.waves > 1 and -(-self.prompts // self.waves) * self.group % self.learner.micro_batch:
            raise ValueError(
                f"retain keeps graphs by micro-batch, but {self.waves} waves of {self.prompts} x {self.group} samples "
                f"are no multiples of learner.micro_batch {self.learner.micro_batch}; change one, or use one wave"
            )
        if self.retain and "sampled" in method.needs:
            raise ValueError(
                f"retain needs a rollout by the policy itself, but {self.method.name!r} rolls out with older weights"
            )
        return self

    def demand(self, texts: tuple[str, ...] | None = None) -> Demand:
        """What the stage asks of its method; with the texts of its prompts, where they are known."""
        asked = [judges.build("reward", weighted.reward) for weighted in self.rewards]
        scales = {name: judge.says.scale for judge in asked for name in judge.names}
        micro_batch = self.learner.micro_batch
        return Demand(self.sampler, self.prompts, self.group, self.updates, micro_batch, scales, texts)


class Online:
    """Roll out, score, credit, update, report."""

    note = ""
    """At the end, where most iterations taught nothing."""

    def __init__(self, config: Config, context: Context) -> None:
        """Build dataset, method and rewards, and start the stage's optimizer."""
        self.config, self.context, self.steps = config, context, config.steps
        self.dataset: Dataset = parts.build("dataset", config.dataset)
        self.method: OnlineMethod = parts.build("method", config.method)
        self.panel = Panel.build(config.rewards)
        context.runtime.begin_stage(config.learner, self.method.needs, self.method)

    def run(self, start: int) -> Iterator[Report]:
        """Iterations `start` to the end."""
        config, runtime, seed = self.config, self.context.runtime, self.context.seed
        if start == 0:
            where = f"the start of stage {self.context.label}"
            score = partial(runtime.score_own, sampler=config.sampler, panel=self.panel, where=where)
            self.method.begin(self.dataset.all_prompts().texts, score)
        first = rng.integer(1 << 20, seed=rng.seed_for(seed, "prompts"))
        for step in range(start, config.steps):
            clock = _Clock()
            prompts = self.dataset.prompts(config.prompts, config.group, first + step)
            exploration = self.method.explore(config.sampler.steps, prompts, rng.seed_for(seed, "explore", step), step)
            scored = self._sample(prompts, exploration, step, clock)
            batch = self.method.credit(scored)
            clock.lap("credit/wall_s")
            learnt = self._learn(batch, step)
            clock.lap("update/wall_s")
            named = {f"online/{name}": value for name, value in {**learnt, **batch.metrics}.items()}
            counts = {"prompts": config.prompts, "rollouts": config.prompts * config.group}
            yield Report(step, {**_rewards(scored), **named, **clock.laps}, counts)
        self.note = self._idle()

    def _idle(self) -> str:
        """A sentence if most iterations taught nothing; the learner's count of updates outlives an interruption."""
        learner = self.context.runtime.learner
        assert learner is not None
        idle = self.steps - learner.updates // self.config.updates
        if 2 * idle <= self.steps:
            return ""
        return f"{idle} of {self.steps} iterations taught nothing: all clips of a prompt got the same reward"

    def _where(self, step: int) -> str:
        return f"step {step} of stage {self.context.label}"

    def _sample(self, prompts: Prompts, exploration: Exploration, step: int, clock: "_Clock") -> Scored:
        """A rollout and its scores, one after the other or, in waves, side by side."""
        config, runtime, where = self.config, self.context.runtime, self._where(step)
        seed = rng.seed_for(self.context.seed, "rollout", step)
        if config.waves > 1:
            how = {"waves": config.waves, "retain": config.retain}
            scored = runtime.sample_and_score(prompts, config.sampler, exploration, seed, self.panel, where, **how)
            clock.lap("rollout/wall_s")
            clock.lap("reward/wall_s")  # what was left to wait for; the rest lies within the rollout
            return scored
        trajectories = runtime.rollout(prompts, config.sampler, exploration, seed, retain=config.retain)
        clock.lap("rollout/wall_s")
        scored = runtime.score(trajectories, self.panel, where)
        clock.lap("reward/wall_s")
        return scored

    def _learn(self, batch: Credited, step: int) -> dict[str, float]:
        """The updates on one rollout, and what the method looks after then; metrics of the later updates are means."""
        runtime, seed, where = self.context.runtime, self.context.seed, self._where(step)
        metrics = runtime.update(self.method, batch, rng.seed_for(seed, "noise", step), where)
        noises = [rng.seed_for(seed, "noise", step, again) for again in range(1, self.config.updates)]
        later = [runtime.update(self.method, batch, noise, where) for noise in noises]
        metrics |= {f"again/{name}": fmean(m[name] for m in later) for name in (later[0] if later else ())}
        return {**metrics, **self.method.after(runtime.model, metrics)}

    def describe(self) -> dict[str, Any]:
        """For the ledger."""
        dataset, rewards = configs.dump(self.config.dataset), self.panel.describe()
        return {"method": self.config.method.name, "dataset": dataset, "rewards": rewards}


def _rewards(scored: Scored) -> dict[str, float]:
    """Means and spreads by name, and the weighted mean of all."""
    rewards, weights = scored.rewards, scored.weights
    means = {name: values.mean().item() for name, values in rewards.items()}
    total = sum(weights[name] * mean for name, mean in means.items()) / sum(weights.values())
    spread = {f"online/spread/{name}": values.std(dim=1).mean().item() for name, values in rewards.items()}
    return {"online/reward": total, **{f"online/reward/{name}": mean for name, mean in means.items()}, **spread}


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
