"""Everything in this process on one device: roll out, decode, score, update."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from reelign import sampling
from reelign.batches import Prompts, Scored, Trajectories, Videos
from reelign.errors import BadConfig, shown
from reelign.panel import Panel
from reelign.parts import Settings
from reelign.protocols import Method, OnlineMethod, VideoModel
from reelign.runtime import malloc, threads
from reelign.runtime.learner import Learner, LearnerConfig
from reelign.sampling import Exploration, SamplerConfig
from reelign.store import StoreConfig

ROLES = frozenset({"reference", "sampled"})


class RuntimeConfig(Settings):
    """Where a run runs."""

    name: Literal["local"] = "local"
    """One process, one device."""
    device: str = "auto"
    """auto is cuda where there is one, else cpu."""
    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads of torch; 0 leaves torch's choice."""
    store: StoreConfig = StoreConfig()
    """Text features and latents of clips, each computed once."""
    offload: Literal["auto"] | bool = "auto"
    """Whether text encoder and codec lie in main memory while the network computes, and come to the device once between
    two passes of it. Auto is so where they take more than a tenth of a CUDA device, and main memory has room for them
    twice."""


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
        roles = sorted(needs & ROLES)
        self.model.reference_weights.keep(roles)
        for role in roles:
            self.model.start_reference(role)
        self.needs, self.memory = needs, memory
        self.learner = Learner(self.model, config)

    def end_stage(self) -> None:
        """Leave the stage's averaged weights in the model, and drop all else that it needed."""
        assert self.learner is not None
        self.learner.settle()
        self.model.reference_weights.keep(())
        self.needs, self.memory, self.learner = frozenset(), None, None

    def rollout(
        self, prompts: Prompts, sampler: SamplerConfig, exploration: Exploration, seed: int, *, retain: bool = False
    ) -> Trajectories:
        """Sample groups of videos as latents, with their stochastic transitions."""
        assert self.learner is not None
        with self.model.reference("sampled") if "sampled" in self.needs else nullcontext():
            micro_batch = self.learner.config.micro_batch
            return sampling.rollout(self.model, prompts, sampler, exploration, seed, micro_batch, retain=retain)

    def score(self, trajectories: Trajectories, panel: Panel, where: str = "") -> Scored:
        """Decode and score a rollout; `where` is "step 12 of stage grpo", for messages."""
        prompts = trajectories.prompts
        videos = self._decode(trajectories.x0)
        scores, weights, ranges = panel.score(videos, prompts.repeated, where)
        return Scored(
            trajectories=trajectories,
            rewards={name: values.reshape(-1, prompts.group) for name, values in scores.items()},
            weights=weights,
            ranges=ranges,
            rescore=lambda others: panel.score(others, prompts.repeated, where)[0],
            videos=videos if "videos" in self.needs else None,
        )

    def sample_and_score(
        self,
        prompts: Prompts,
        sampler: SamplerConfig,
        exploration: Exploration,
        seed: int,
        panel: Panel,
        where: str = "",
        *,
        waves: int = 1,
        retain: bool = False,
    ) -> Scored:
        """Roll out in `waves` parts and score each in the background while the next one is on its way."""
        pieces = list(sampling.chunks(len(prompts.ids), -(-len(prompts.ids) // waves)))
        if len(pieces) == 1:  # in the threads that have sampled: another thread would start a team of its own
            return self.score(self.rollout(prompts, sampler, exploration, seed, retain=retain), panel, where)
        with ThreadPoolExecutor(max_workers=1, initializer=threads.release) as pool:
            waiting = []
            for cut in pieces:
                some = Prompts(prompts.texts[cut], prompts.ids[cut], prompts.group, prompts.slices[cut])
                part = replace(exploration, first=exploration.first[cut])
                found = self.rollout(some, sampler, part, seed, retain=retain)
                waiting.append(pool.submit(self.score, found, panel, where))
            scored = [future.result() for future in waiting]
        return _joined(scored, panel, where)

    def score_own(
        self, texts: Sequence[str], seeds: Sequence[int], sampler: SamplerConfig, panel: Panel, where: str = ""
    ) -> dict[str, Float[Tensor, " b"]]:
        """Scores of the present policy's own deterministic samples, one for each text and seed."""
        assert self.learner is not None
        x0 = sampling.sample(self.model, texts, seeds, sampler, self.learner.config.micro_batch)
        return panel.score(self._decode(x0), texts, where)[0]

    def _decode(self, x0: Float[Tensor, "b *latent"]) -> Videos:
        """All at once on the host, where there is room for a whole rollout."""
        assert self.learner is not None
        return sampling.decode(self.model, x0, self.learner.config.micro_batch)

    def update(self, method: Method, batch: Any, seed: int, where: str) -> dict[str, float]:
        """One optimizer step."""
        assert self.learner is not None
        return self.learner.update(method, batch, seed, where)


def _joined(scored: Sequence[Scored], panel: Panel, where: str) -> Scored:
    first = scored[0]
    trajectories = sampling.join([s.trajectories for s in scored])
    videos = [s.videos for s in scored if s.videos is not None]
    return replace(
        first,
        trajectories=trajectories,
        rewards={name: torch.cat([s.rewards[name] for s in scored]) for name in first.rewards},
        rescore=lambda others: panel.score(others, trajectories.prompts.repeated, where)[0],
        videos=Videos(torch.cat([v.frames for v in videos]), videos[0].fps) if videos else None,
    )


def resolve(config: RuntimeConfig) -> torch.device:
    """The device of a runtime config; changes nothing.

    Raises:
        BadConfig: torch has no such device, or none that can hold a tensor here.
    """
    name = config.device
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.zeros(1, device=found).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # each kind of device has its own way to be absent
        seen = torch.cuda.device_count()
        here = f"cpu or cuda ({seen} there)" if seen else "cpu, as torch sees no CUDA device"
        raise BadConfig(
            f"runtime.device is {shown(name)}, which cannot hold a tensor here; use auto or {here}."
        ) from error
    return torch.device("cpu") if found.type == "cpu" else found


def set_up(config: RuntimeConfig) -> None:
    """Set up the process for a runtime config: torch's threads, and how memory is kept."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if resolve(config).type == "cpu":
        malloc.keep_freed()


def device(config: RuntimeConfig) -> torch.device:
    """Resolve the device of a runtime config, and set up the process for it."""
    found = resolve(config)
    set_up(config)
    return found
