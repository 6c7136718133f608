"""A stage from outside the package: trains on several data sets in turn."""

from collections.abc import Iterator

from pydantic import Field

from reelign.core import rng
from reelign.parts import AnyDataset, AnyMethod, Settings
from reelign.runtime.learner import LearnerConfig
from reelign.runtime.work import StageSpec, Work
from reelign.stage import Context, Report, StageConfig


class Source(Settings):
    dataset: AnyDataset
    turns: int = Field(default=1, ge=1)


class Config(StageConfig):
    steps: int = Field(ge=1)
    batch: int = Field(default=4, ge=1)
    sources: tuple[Source, ...] = Field(min_length=1)
    method: AnyMethod
    learner: LearnerConfig = LearnerConfig()

    @property
    def title(self) -> str:
        return "mixed"


class Mixed:
    note = ""

    def __init__(self, config: Config, context: Context) -> None:
        self.config, self.context, self.steps = config, context, config.steps
        self.turns = [context.opened(source.dataset) for source in config.sources for _ in range(source.turns)]
        self.spec = StageSpec(config.method, config.learner)

    def run(self, work: Work, start: int) -> Iterator[Report]:
        for step in range(start, self.steps):
            turn = step % len(self.turns)
            noise = rng.seed_for(self.context.seed, "noise", step)
            metrics = work.learn(self.turns[turn], self.config.batch, step, noise, f"step {step} of the mix")
            yield Report(step, {"mixed/loss": metrics["loss"], "mixed/turn": turn}, {"clips": self.config.batch})


def build(config: Config, context: Context) -> Mixed:
    return Mixed(config, context)
