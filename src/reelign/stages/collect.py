"""Collect preference pairs from the policy itself: sample, let an annotator rank, write the clips and the pairs.

In the playground the annotator is a script: rewards plus noise, and a tie where the difference is small. The ledger and
the report say so. The pairs are written in the format that users bring (`pair_list`), and read back from it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from reelign import video
from reelign.batches import Request, Videos
from reelign.core import rng
from reelign.files import write_text
from reelign.names import Inside
from reelign.panel import Weighted
from reelign.parts import AnyDataset
from reelign.runtime.collected import Collected
from reelign.runtime.work import StageSpec, Work
from reelign.sampling import SamplerConfig
from reelign.stage import Context, Data, Draw, Report, StageConfig

Json = dict[str, Any]


class Config(StageConfig):
    """A collecting stage; it trains nothing."""

    name: str = "collect"
    """The kind of stage."""
    dataset: AnyDataset
    """Where the prompts come from."""
    prompts: int = Field(default=64, ge=1)
    """Prompts in all."""
    per_step: int = Field(default=16, ge=1)
    """Prompts of one step, which is what an interruption can lose."""
    members: int = Field(default=4, ge=2)
    """Samples of each prompt; the best and the worst make the pair."""
    sampler: SamplerConfig = SamplerConfig()
    batch: int = Field(default=32, ge=1)
    """Samples in one forward pass."""
    rewards: tuple[Weighted, ...] = Field(min_length=1)
    """What the scripted annotator looks at."""
    noise: float = Field(default=0.1, ge=0)
    """Standard deviation of the annotator's error, in units of the weighted mean reward."""
    tie: float = Field(default=0.1, ge=0)
    """Pairs whose perceived difference is smaller are ties and are not used."""
    path: Inside = "pairs"
    """Folder inside the run folder."""

    @property
    def draws(self) -> Draw:
        """The prompts of a step."""
        return Draw("prompts", min(self.prompts, self.per_step), self.members)

    @property
    def writes(self) -> Mapping[str, Data]:
        """The list of all pairs."""
        return {f"{self.path}/pairs.jsonl": "pairs"}

    def collected(self, folder: Path, run: str) -> Collected:
        """What it has written, or will write, into the folder of a run."""
        return Collected(folder, self.path, run, -(-self.prompts // self.per_step))


class Collect:
    """Sample, rank, write."""

    def __init__(self, config: Config, context: Context) -> None:
        self.config, self.context = config, context
        self.dataset = context.opened(config.dataset)
        self.spec = StageSpec(rewards=config.rewards)
        self.made = config.collected(context.folder, context.run)
        self.folder, self.steps = self.made.folder, self.made.steps
        looks = ", ".join(w.reward.name for w in config.rewards)
        self.note = f"preferences are simulated: a script ranks by {looks} with noise {config.noise:g}"

    def run(self, work: Work, start: int) -> Iterator[Report]:
        """Steps `start` to the end; the last one joins the parts into `pairs.jsonl`."""
        self.made.claim(start)
        for step in range(start, self.steps):
            n = min(self.config.per_step, self.config.prompts - step * self.config.per_step)
            rows, metrics = self._step(work, step, n)
            part = f"part-{step:04d}.jsonl"
            write_text(self.folder / part, "".join(json.dumps(row) + "\n" for row in rows))
            files = [part, *(row[role] for row in rows for role in ("chosen", "rejected"))]
            if step == self.steps - 1:
                parts_ = [self.folder / f"part-{k:04d}.jsonl" for k in range(self.steps)]
                write_text(self.folder / "pairs.jsonl", "".join(p.read_text(encoding="utf-8") for p in parts_))
                files.append("pairs.jsonl")
            self.made.note(step, files)
            yield Report(step, metrics, {"prompts": n, "rollouts": n * self.config.members, "pairs": len(rows)})

    def _step(self, work: Work, step: int, n: int) -> tuple[list[Json], dict[str, float]]:
        config = self.config
        seed = rng.seed_for(self.context.seed, "collect", step)
        drawn = self.dataset.prompts(n, config.members, rng.integer(1 << 20, seed=self.context.seed) + step)
        seeds = [rng.seed_for(seed, i, m) for i in drawn.ids for m in range(config.members)]
        error = rng.normal((len(seeds),), seed=rng.seed_for(seed, "annotator")).reshape(n, config.members)
        whole = max(1, config.batch // config.members) * config.members
        where, rows, utilities, done = f"step {step} of stage {self.context.label}", [], [], 0
        for videos in work.sample(drawn.repeated, seeds, config.sampler, whole):
            utility = work.utility(videos, drawn.repeated[done : done + len(videos)], where).reshape(-1, config.members)
            first = done // config.members
            asked = drawn.requests[first : first + len(utility)]
            rows += self._rows(
                (step, first), asked, utility + config.noise * error[first : first + len(utility)], videos
            )
            utilities.append(utility)
            done += len(videos)
            del videos  # before the next ones are made
        metrics = {"collect/utility": float(torch.cat(utilities).mean()), "collect/kept": len(rows) / n}
        return rows, metrics

    def _rows(
        self, at: tuple[int, int], asked: Sequence[Request], perceived: Float[Tensor, "p g"], videos: Videos
    ) -> list[Json]:
        """Write the best and the worst clip of each prompt whose difference was noticed; `at` is step and prompt."""
        rows, (step, first), members = [], at, perceived.shape[1]
        best, worst = perceived.argmax(dim=1).tolist(), perceived.argmin(dim=1).tolist()
        for p, (winner, loser) in enumerate(zip(best, worst, strict=True)):
            if float(perceived[p, winner] - perceived[p, loser]) <= self.config.tie:
                continue
            names = {}
            for role, member in (("chosen", winner), ("rejected", loser)):
                names[role] = f"clips/{step:04d}-{first + p:03d}-{role}.mp4"
                path: Path = self.folder / names[role]
                video.write(path, videos.frames[p * members + member], videos.fps, lossless=True)
            rows.append({"prompt": asked[p].text, **names})
        return rows


build = Collect
