"""Train on what the policy itself samples: roll out, score, compare, update."""

import time
from collections.abc import Iterator
from functools import partial
from statistics import fmean
from typing import Any

from pydantic import Field, field_validator, model_validator

from reelign import declared, panel, video
from reelign.batches import Credited, Prompts, Scored, requests
from reelign.core import rng
from reelign.engines.slots import Demand
from reelign.panel import Weighted
from reelign.parts import AnyDataset, AnyMethod, PartConfig, Settings
from reelign.protocols import Card
from reelign.records import Sample
from reelign.runtime import plan
from reelign.runtime.footprint import Burden
from reelign.runtime.learner import LearnerConfig
from reelign.runtime.plan import Item, PassesConfig
from reelign.runtime.work import StageSpec, Work
from reelign.sampling import SamplerConfig
from reelign.stage import Context, Draw, Report, StageConfig


class ShownConfig(Settings):
    """Which samples of a stage under way people can look at."""

    every: int = Field(default=20, ge=0, le=10**9)
    """Iterations between two of which some samples are kept, with their rewards; 0 keeps none."""
    prompts: int = Field(default=2, ge=1, le=1000)
    """So many of its prompts, one sample each."""
    scale: int | None = Field(default=None, ge=1, le=64)
    """Enlargement of their videos; by default tiny clips are enlarged to about 256 pixels of width."""


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
    show: ShownConfig = ShownConfig()
    """What is kept for the report while it trains."""
    passes: PassesConfig = PassesConfig()
    """How an iteration is cut into forward passes."""

    @property
    def draws(self) -> Draw:
        """The prompts of an iteration."""
        return Draw("prompts", self.prompts, self.group)

    @property
    def shift(self) -> float:
        """The sampler's."""
        return self.sampler.shift

    @property
    def burden(self) -> Burden:
        """A rollout: of each recorded step where it begins, where it ends, and its mean."""
        n, micro_batch, recorded = self.prompts * self.group, self.learner.micro_batch, self._recorded()
        graphs = recorded * -(-n // micro_batch) if self.passes.retain else 1
        rows = min(n, micro_batch) * (1 if self.sampler.guidance == 1 else 2)
        return Burden(self.prompts + 1, n * (1 + 3 * recorded), rows, len(declared.needs(self.method)), graphs)

    @field_validator("method")
    @classmethod
    def _consumes_what_it_samples(cls, method: PartConfig) -> PartConfig:
        if declared.consumes(method) is not Credited:
            raise ValueError(f"{method.name!r} trains on clips or pairs that exist; give it a stage 'offline'")
        declared.needs(method)  # refuses modules that do not go together
        return method

    @model_validator(mode="after")
    def _can_be_done(self) -> "Config":
        self.check(None, None)
        retain, merge = self.passes.retain, self.passes.merge
        if retain and self.updates > 1:
            raise ValueError(
                f"passes.retain keeps a graph for one update, but updates is {self.updates}; use one of the two"
            )
        if retain and merge:
            raise ValueError("passes.merge is about replays, and with passes.retain there are none; use one of the two")
        if retain and self.passes.micro_batch not in (None, self.learner.micro_batch):
            raise ValueError(
                f"passes.retain keeps graphs by forward pass, but passes.micro_batch is {self.passes.micro_batch} and "
                f"learner.micro_batch {self.learner.micro_batch}; leave the first out"
            )
        if retain and "sampled" in declared.needs(self.method):
            raise ValueError(
                f"passes.retain needs a rollout by the policy itself, but {self.method.name!r} rolls out with older "
                "weights"
            )
        return self

    def _recorded(self) -> int:
        """Stochastic steps that are kept of a sample; of a method that does not say, none."""
        method: Any = self.method
        if not hasattr(method, "filled"):
            return 0
        prompts = Prompts(requests("" for _ in range(self.prompts)), self.group)
        exploration = method.filled().select.draw(self.sampler.steps, prompts, 0, 0)
        return exploration.width if exploration.record is None else len(exploration.record)

    def check(self, texts: tuple[str, ...] | None, card: Card | None) -> None:
        """Let the method refuse what the stage asks of it, with all its prompts and the model's card if they are known.

        Raises:
            BadConfig: in one sentence.
        """
        own, scales = self.learner.micro_batch, panel.trained(self.rewards)
        boundary = card.boundary if card else None
        check = getattr(self.method, "check", None)
        if check:
            check(Demand(self.sampler, self.prompts, self.group, self.updates, own, scales, texts, boundary))


class Online:
    """Roll out, score, credit, update, report."""

    note = ""
    """At the end, where most iterations taught nothing."""

    def __init__(self, config: Config, context: Context) -> None:
        self.config, self.context, self.steps = config, context, config.steps
        self.dataset = context.opened(config.dataset)
        self.spec = StageSpec(config.method, config.learner, config.rewards, config.passes)

    def run(self, work: Work, start: int) -> Iterator[Report]:
        """Iterations `start` to the end."""
        config, seed = self.config, self.context.seed
        work.method.opened = self.context.opened
        if start == 0:
            score = partial(work.score, sampler=config.sampler, where=f"the start of stage {self.context.label}")
            work.method.begin(self.dataset.all_prompts().requests, score)
        first = rng.integer(1 << 20, seed=rng.seed_for(seed, "prompts"))
        for step in range(start, config.steps):
            prompts = self.dataset.prompts(config.prompts, config.group, first + step)
            show = config.show.prompts if config.show.every and step % config.show.every == 0 else 0
            scored = work.rollout(self._plan(work, prompts, step), config.sampler, self._where(step), show)
            laps, began = dict(scored.seconds), time.perf_counter()
            batch = work.method.credit(scored)
            laps["credit"], began = time.perf_counter() - began, time.perf_counter()
            learnt = self._learn(work, batch, step)
            laps["update"] = time.perf_counter() - began
            named = {f"online/{name}": value for name, value in {**learnt, **batch.metrics}.items()}
            named |= {f"{name}/wall_s": seconds for name, seconds in laps.items()}
            counts = {"prompts": config.prompts, "rollouts": config.prompts * config.group}
            yield Report(step, {**_rewards(scored), **named}, counts, self._kept(scored, step))
        self.note = self._idle(work)

    def _kept(self, scored: Scored, step: int) -> tuple[Sample, ...]:
        """Write what is shown of a rollout."""
        kept, seed = [], rng.seed_for(self.context.seed, "rollout", step)
        for shown in scored.shown:
            request, member = shown.request, shown.member
            path = f"samples/{self.context.label}/step-{step:06d}-{request.id}-{member}.mp4"
            (self.context.folder / path).parent.mkdir(parents=True, exist_ok=True)
            video.write(self.context.folder / path, shown.frames / 255, shown.fps, scale=self.config.show.scale)
            about = {"prompt": request.text, "prompt_id": request.id, "member": member, "seed": seed}
            kept.append(Sample(**about, rewards=shown.rewards, video=path))
        return tuple(kept)

    def _idle(self, work: Work) -> str:
        """A sentence if most iterations taught nothing; the count of updates outlives an interruption."""
        idle = self.steps - work.updates // self.config.updates
        if 2 * idle <= self.steps:
            return ""
        return f"{idle} of {self.steps} iterations taught nothing: all clips of a prompt got the same reward"

    def _where(self, step: int) -> str:
        return f"step {step} of stage {self.context.label}"

    def _plan(self, work: Work, prompts: Prompts, step: int) -> tuple[Item, ...]:
        """The pieces of an iteration."""
        config, seed = self.config, self.context.seed
        explored = work.method.explore(config.sampler.steps, prompts, rng.seed_for(seed, "explore", step), step)
        micro_batch = config.passes.micro_batch or config.learner.micro_batch
        return plan.rollout(prompts, explored, rng.seed_for(seed, "rollout", step), micro_batch)

    def _learn(self, work: Work, batch: Credited, step: int) -> dict[str, float]:
        """The updates on one rollout, and what the method looks after then; metrics of the later updates are means."""
        seed, where = self.context.seed, self._where(step)
        metrics = work.update(batch, rng.seed_for(seed, "noise", step), where)
        noises = [rng.seed_for(seed, "noise", step, again) for again in range(1, self.config.updates)]
        later = [work.update(batch, noise, where) for noise in noises]
        metrics |= {f"again/{name}": fmean(m[name] for m in later) for name in (later[0] if later else ())}
        return {**metrics, **work.after(metrics)}


def _rewards(scored: Scored) -> dict[str, float]:
    """Means and spreads by name, and the weighted mean of all."""
    rewards, weights = {**scored.rewards, **scored.watched}, scored.weights
    means = {name: values.mean().item() for name, values in rewards.items()}
    total = sum(weights[name] * mean for name, mean in means.items()) / sum(weights.values())
    spread = {f"online/spread/{name}": values.std(dim=1).mean().item() for name, values in rewards.items()}
    return {"online/reward": total, **{f"online/reward/{name}": mean for name, mean in means.items()}, **spread}


build = Online
