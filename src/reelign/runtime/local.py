"""Everything in this process on one device: roll out, decode, score, update."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import BeforeValidator, Field, model_serializer
from torch import Tensor

from reelign import memory, parts, sampling
from reelign.batches import Prompts, Scored, Trajectories, Videos
from reelign.errors import BadConfig, RunStopped
from reelign.parts import AnyReward, Settings
from reelign.protocols import Method, OnlineMethod, Reward, VideoModel
from reelign.runtime.learner import Learner, LearnerConfig
from reelign.sampling import Exploration, SamplerConfig

ROLES = frozenset({"reference", "sampled"})


class RuntimeConfig(Settings):
    """Where a run runs."""

    name: Literal["local"] = "local"
    device: str = "auto"
    """auto is cuda where there is one, else cpu."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of torch; 0 leaves torch's choice."""


class WeightedReward(Settings):
    """A reward and how much it counts: `{name: videoalign, weight: 0.5, ...}`."""

    weight: float = Field(default=1.0, gt=0)
    reward: AnyReward

    @model_serializer
    def _side_by_side(self) -> dict[str, Any]:
        return {**self.reward.model_dump(mode="json"), "weight": self.weight}


def _split(value: object) -> object:
    """Take `weight` out of `{name, weight, ...}`; the rest configures the reward."""
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, Mapping) and "reward" not in value:
        # Configured here, so that an error's path is the one in the recipe: rewards.0.key, not rewards.0.reward.key.
        rest = parts.configure("reward", {k: v for k, v in value.items() if k != "weight"})
        return {"reward": rest, **({"weight": value["weight"]} if "weight" in value else {})}
    return value


Weighted = Annotated[WeightedReward, BeforeValidator(_split)]


@dataclass(frozen=True, slots=True)
class Panel:
    """The rewards of a stage, built, with their weights by score name."""

    rewards: tuple[Reward, ...]
    weights: tuple[float, ...]

    @classmethod
    def build(cls, configs: Sequence[WeightedReward]) -> "Panel":
        """Build each reward."""
        return cls(tuple(parts.build("reward", c.reward) for c in configs), tuple(c.weight for c in configs))

    def score(
        self, videos: Videos, texts: Sequence[str]
    ) -> tuple[dict[str, Float[Tensor, " b"]], dict[str, float], dict[str, tuple[float, float]]]:
        """All scores by name, each name's weight, and its declared scale.

        Raises:
            RunStopped: a score that is not finite or off its declared scale; names the reward and the prompt.
            BadConfig: two rewards of one name, of which one would be lost.
        """
        scores: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        ranges: dict[str, tuple[float, float]] = {}
        for reward, weight in zip(self.rewards, self.weights, strict=True):
            low, high = reward.range
            given = reward(videos, texts)
            if given.keys() != set(reward.names):
                raise RunStopped(
                    f"a reward that declares the scores {sorted(reward.names)} gave {sorted(given)}; mend its names."
                )
            for name, values in given.items():
                if name in scores:
                    raise BadConfig(
                        f"two rewards give the score {name!r}; keep one of them, or give them names of their own."
                    )
                wrong = ~torch.isfinite(values) | (values < low) | (values > high)
                if bool(wrong.any()):
                    i = int(wrong.nonzero()[0])
                    problem = (
                        "which is not finite"
                        if not math.isfinite(values[i].item())
                        else f"outside its scale {low:g} to {high:g}"
                    )
                    raise RunStopped(
                        f"the reward {name!r} gave {values[i].item():g} for {texts[i]!r}, {problem}. Nothing was "
                        "trained on it; mend the reward or leave it out."
                    )
                scores[name], weights[name], ranges[name] = values, weight, reward.range
        return scores, weights, ranges


class Local:
    """The in-process runtime. Owns the learner of the running stage."""

    def __init__(self, model: VideoModel) -> None:
        """Wrap a model; `begin_stage` comes before any update."""
        self.model = model
        self.needs: frozenset[str] = frozenset()
        self.memory: OnlineMethod | None = None
        """The running stage's method, where it remembers something that a checkpoint must keep."""
        self.learner: Learner | None = None

    def begin_stage(self, config: LearnerConfig, needs: frozenset[str], memory: OnlineMethod | None = None) -> None:
        """Start a stage: fresh optimizer, and the present weights in each frozen role that the method needs."""
        for role in sorted(needs & ROLES):
            self.model.start_reference(role)
        self.needs, self.memory = needs, memory
        self.learner = Learner(self.model, config)

    def rollout(
        self, prompts: Prompts, sampler: SamplerConfig, exploration: Exploration, seed: int, *, retain: bool = False
    ) -> Trajectories:
        """Sample groups of videos as latents, with their stochastic transitions."""
        assert self.learner is not None
        with self.model.reference("sampled") if "sampled" in self.needs else nullcontext():
            micro_batch = self.learner.config.micro_batch
            return sampling.rollout(self.model, prompts, sampler, exploration, seed, micro_batch, retain=retain)

    def score(self, trajectories: Trajectories, panel: Panel) -> Scored:
        """Decode and score a rollout."""
        prompts = trajectories.prompts
        videos = self._decode(trajectories.x0)
        scores, weights, ranges = panel.score(videos, prompts.repeated)
        return Scored(
            trajectories=trajectories,
            rewards={name: values.reshape(-1, prompts.group) for name, values in scores.items()},
            weights=weights,
            ranges=ranges,
            rescore=lambda others: panel.score(others, prompts.repeated)[0],
            videos=videos if "videos" in self.needs else None,
        )

    def sample_and_score(
        self,
        prompts: Prompts,
        sampler: SamplerConfig,
        exploration: Exploration,
        seed: int,
        panel: Panel,
        *,
        waves: int = 1,
        retain: bool = False,
    ) -> Scored:
        """Roll out in `waves` parts and score each in the background while the next one is on its way."""
        pieces = list(sampling.chunks(len(prompts.ids), -(-len(prompts.ids) // waves)))
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting = []
            for cut in pieces:
                some = Prompts(prompts.texts[cut], prompts.ids[cut], prompts.group, prompts.slices[cut])
                part = replace(exploration, first=exploration.first[cut])
                found = self.rollout(some, sampler, part, seed, retain=retain)
                waiting.append(pool.submit(self.score, found, panel))
            scored = [future.result() for future in waiting]
        return scored[0] if len(scored) == 1 else _joined(scored, panel)

    def score_own(
        self, texts: Sequence[str], seeds: Sequence[int], sampler: SamplerConfig, panel: Panel
    ) -> dict[str, Float[Tensor, " b"]]:
        """Scores of the present policy's own deterministic samples, one for each text and seed."""
        assert self.learner is not None
        x0 = sampling.sample(self.model, texts, seeds, sampler, self.learner.config.micro_batch)
        return panel.score(self._decode(x0), texts)[0]

    def _decode(self, x0: Float[Tensor, "b *latent"]) -> Videos:
        """Decode in micro-batches; decoded videos wait on the host, where there is room for a whole rollout."""
        assert self.learner is not None
        videos = [self.model.decode(x0[cut]) for cut in sampling.chunks(len(x0), self.learner.config.micro_batch)]
        return Videos(torch.cat([v.frames.cpu() for v in videos]), videos[0].fps)

    def update(self, method: Method, batch: Any, seed: int, where: str) -> dict[str, float]:
        """One optimizer step."""
        assert self.learner is not None
        return self.learner.update(method, batch, seed, where)


def _joined(scored: Sequence[Scored], panel: Panel) -> Scored:
    first = scored[0]
    trajectories = sampling.join([s.trajectories for s in scored])
    videos = [s.videos for s in scored if s.videos is not None]
    return replace(
        first,
        trajectories=trajectories,
        rewards={name: torch.cat([s.rewards[name] for s in scored]) for name in first.rewards},
        rescore=lambda others: panel.score(others, trajectories.prompts.repeated)[0],
        videos=Videos(torch.cat([v.frames for v in videos]), videos[0].fps) if videos else None,
    )


def device(config: RuntimeConfig) -> torch.device:
    """The device of a runtime config; also sets up the process for it: torch's threads, and how memory is kept.

    Raises:
        BadConfig: torch has no device of that name.
        RunStopped: a CUDA device is asked for and there is none.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise RunStopped(f"runtime.device is {name!r}, but torch sees no CUDA device; use cpu or auto.")
    if name.startswith("cpu"):
        memory.keep_freed()
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise BadConfig(f"runtime.device: torch has no device {name!r}; use auto, cpu or cuda.") from error
