"""Train on batches that exist: SFT on clips, DPO on pairs."""

import time
from collections.abc import Iterator

from pydantic import Field, field_validator

from reelign import declared
from reelign.batches import Clips, Pairs
from reelign.core import rng
from reelign.parts import AnyDataset, AnyMethod, PartConfig
from reelign.runtime.footprint import Burden
from reelign.runtime.learner import LearnerConfig
from reelign.runtime.work import StageSpec, Work
from reelign.stage import Context, Draw, Report, StageConfig


class Config(StageConfig):
    """An offline stage."""

    name: str = "offline"
    """The kind of stage."""
    steps: int = Field(ge=1, le=10**9)
    """Optimizer steps."""
    batch: int = Field(default=16, ge=1, le=10**6)
    """Clips or pairs of one step."""
    dataset: AnyDataset
    """Where clips or pairs come from."""
    method: AnyMethod
    """What is learnt from them: sft from clips, dpo from pairs."""
    learner: LearnerConfig = LearnerConfig()

    @property
    def draws(self) -> Draw:
        """What the method consumes."""
        return Draw("pairs" if declared.consumes(self.method) is Pairs else "clips")

    @property
    def burden(self) -> Burden:
        """A batch with its noise; both of a pair share a noise and a forward pass."""
        n, micro_batch, roles = self.batch, self.learner.micro_batch, len(declared.needs(self.method))
        if declared.consumes(self.method) is Pairs:
            return Burden(n + 1, 3 * n, 2 * min(n, max(1, micro_batch // 2)), roles)
        return Burden(n + 1, 2 * n, min(n, micro_batch), roles)

    @field_validator("method")
    @classmethod
    def _consumes_what_exists(cls, method: PartConfig) -> PartConfig:
        if declared.consumes(method) not in (Clips, Pairs):
            raise ValueError(f"{method.name!r} trains on what the policy samples; give it a stage 'online'")
        return method


class Offline:
    """Draw, update, report."""

    note = ""

    def __init__(self, config: Config, context: Context) -> None:
        self.config, self.context, self.steps = config, context, config.steps
        self.dataset = context.opened(config.dataset)
        self.spec = StageSpec(config.method, config.learner)

    def run(self, work: Work, start: int) -> Iterator[Report]:
        """Steps `start` to the end."""
        config, context = self.config, self.context
        # Draws are consecutive, so that a dataset goes through all it has before it repeats; each run starts elsewhere.
        first = rng.integer(1 << 20, seed=rng.seed_for(context.seed, "data"))
        for step in range(start, config.steps):
            began = time.perf_counter()
            where, noise = f"step {step} of stage {context.label}", rng.seed_for(context.seed, "noise", step)
            metrics = work.learn(self.dataset, config.batch, first + step, noise, where)
            named = {f"offline/{name}": value for name, value in metrics.items()}
            named["update/wall_s"] = time.perf_counter() - began
            yield Report(step, named, {config.draws.what: config.batch})


build = Offline
