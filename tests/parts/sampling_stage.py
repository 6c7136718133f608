"""A stage from outside that trains nothing and keeps a sample of every other step."""

from collections.abc import Iterator

from reelign.parts import PartConfig
from reelign.records import Sample
from reelign.runtime.work import StageSpec, Work
from reelign.stage import Context, Report, StageConfig


class Config(StageConfig):
    name: str = "tests.parts.sampling_stage:build"
    steps: int = 4


class Sampling:
    note = ""

    def __init__(self, config: Config, context: Context) -> None:
        self.steps, self.context = config.steps, context
        self.spec = StageSpec()

    def run(self, work: Work, start: int) -> Iterator[Report]:
        for step in range(start, self.steps):
            name = f"samples/{self.context.label}/step-{step:05d}.mp4"
            (self.context.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.context.folder / name).write_bytes(b"a film")
            about = {"prompt": "a circle", "prompt_id": 2, "member": 0, "seed": 7, "video": name}
            sample = Sample.model_validate({**about, "rewards": {"linear": step / 4}})
            yield Report(step, {"online/reward": step / 4}, {}, (sample,) if step % 2 == 0 else ())


def build(config: PartConfig, context: Context) -> Sampling:
    assert isinstance(config, Config)
    return Sampling(config, context)
