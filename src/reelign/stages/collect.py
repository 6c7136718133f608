"""Collect preference pairs from the policy itself: sample, let an annotator rank, write the clips and the pairs.

In the playground the annotator is a script: rewards plus noise, and a tie where the difference is small. The ledger and
the report say so. The pairs are written in the format that users bring (`pair_list`), and read back from it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from reelign import config as configs
from reelign import parts, sampling, video
from reelign.batches import Prompts
from reelign.core import rng
from reelign.files import write_text
from reelign.names import Inside
from reelign.panel import Panel, Weighted
from reelign.parts import AnyDataset
from reelign.protocols import Dataset
from reelign.sampling import SamplerConfig
from reelign.stage import Context, Report, StageConfig
from reelign.stages._collected import Collected


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


class Collect:
    """Sample, rank, write."""

    def __init__(self, config: Config, context: Context) -> None:
        """Build the prompt source and the annotator."""
        self.config, self.context = config, context
        self.dataset: Dataset = parts.build("dataset", config.dataset)
        self.panel = Panel.build(config.rewards)
        self.made = collected(config, context.folder, context.run)
        self.folder, self.steps = self.made.folder, self.made.steps
        looks = ", ".join(w.reward.name for w in config.rewards)
        self.note = f"preferences are simulated: a script ranks by {looks} with noise {config.noise:g}"

    def run(self, start: int) -> Iterator[Report]:
        """Steps `start` to the end; the last one joins the parts into `pairs.jsonl`."""
        self.made.claim(start)
        for step in range(start, self.steps):
            n = min(self.config.per_step, self.config.prompts - step * self.config.per_step)
            rows, metrics = self._step(step, n)
            part = f"part-{step:04d}.jsonl"
            write_text(self.folder / part, "".join(json.dumps(row) + "\n" for row in rows))
            files = [part, *(row[role] for row in rows for role in ("chosen", "rejected"))]
            if step == self.steps - 1:
                parts_ = [self.folder / f"part-{k:04d}.jsonl" for k in range(self.steps)]
                write_text(self.folder / "pairs.jsonl", "".join(p.read_text(encoding="utf-8") for p in parts_))
                files.append("pairs.jsonl")
            self.made.note(step, files)
            yield Report(step, metrics, {"prompts": n, "rollouts": n * self.config.members, "pairs": len(rows)})

    def _step(self, step: int, n: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
        config, model = self.config, self.context.runtime.model
        seed = rng.seed_for(self.context.seed, "collect", step)
        drawn = self.dataset.prompts(n, config.members, rng.integer(1 << 20, seed=self.context.seed) + step)
        seeds = [rng.seed_for(seed, i, m) for i in drawn.ids for m in range(config.members)]
        x0 = sampling.sample(model, drawn.repeated, seeds, config.sampler, config.batch)
        videos = sampling.decode(model, x0, config.batch)
        where = f"step {step} of stage {self.context.label}"
        scores, weights, _ = self.panel.score(videos, drawn.repeated, where)
        utility = torch.stack([weights[k] * v for k, v in scores.items()]).sum(dim=0) / sum(weights.values())
        error = rng.normal((len(seeds),), seed=rng.seed_for(seed, "annotator"))
        perceived = (utility + config.noise * error).reshape(n, config.members)
        rows = self._rows(step, drawn, perceived, videos.frames, videos.fps)
        metrics = {"collect/utility": float(utility.mean()), "collect/kept": len(rows) / n}
        return rows, metrics

    def _rows(
        self, step: int, drawn: Prompts, perceived: torch.Tensor, frames: torch.Tensor, fps: float
    ) -> list[dict[str, Any]]:
        """Write the best and the worst clip of each prompt whose difference was noticed."""
        rows = []
        best, worst = perceived.argmax(dim=1).tolist(), perceived.argmin(dim=1).tolist()
        for p, (winner, loser) in enumerate(zip(best, worst, strict=True)):
            if float(perceived[p, winner] - perceived[p, loser]) <= self.config.tie:
                continue
            names = {}
            for role, member in (("chosen", winner), ("rejected", loser)):
                names[role] = f"clips/{step:04d}-{p:03d}-{role}.mp4"
                path: Path = self.folder / names[role]
                video.write(path, frames[p * drawn.group + member], fps, lossless=True)
            rows.append({"prompt": drawn.texts[p], **names})
        return rows

    def describe(self) -> dict[str, Any]:
        """For the ledger."""
        dataset, rewards = configs.dump(self.config.dataset), self.panel.describe()
        return {"method": "collect", "dataset": dataset, "rewards": rewards}


def collected(config: Config, folder: Path, run: str) -> Collected:
    """What such a stage has written, or will write, into the folder of a run."""
    return Collected(folder, config.path, run, -(-config.prompts // config.per_step))


def build(config: Config, context: Context) -> Collect:
    """Start a collecting stage."""
    return Collect(config, context)
