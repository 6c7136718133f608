"""A stage under way in this process: roll out, decode, score, update."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reelign import declared, parts, rollouts, sampling, soundness
from reelign.batches import Clips, Pairs, Prompts, Request, Scored, Shown, Trajectories, Videos, joined
from reelign.panel import Panel
from reelign.protocols import VideoModel
from reelign.runtime import threads
from reelign.runtime.learner import Learner
from reelign.runtime.plan import Item
from reelign.runtime.work import Groups, StageSpec
from reelign.sampling import SamplerConfig
from reelign.weights import of_experts


class Gathered:
    """The rollout of an iteration, piece by piece; all of one sampler, exploration and size.

    Each piece is copied into tensors of all samples as it comes, so that none is held twice.
    """

    def __init__(self, n: int) -> None:
        self._n, self._parts = n, list[Trajectories]()
        self._tensors: dict[str, Tensor] = {}

    def add(self, part: Trajectories) -> Trajectories:
        """The next piece; its tensors now lie in those of the whole."""
        start, count = sum(len(known.x0) for known in self._parts), len(part.x0)
        own: dict[str, Tensor] = {}
        for name in ("x0", *rollouts.BY_SAMPLE) if count < self._n else ():
            value, axis = getattr(part, name), 0 if name == "x0" else 1
            if name not in self._tensors:
                self._tensors[name] = value.new_empty(*value.shape[:axis], self._n, *value.shape[axis + 1 :])
            own[name] = self._tensors[name].narrow(axis, start, count).copy_(value)
        self._parts.append(replace(part, **own))
        return self._parts[-1]

    def whole(self) -> Trajectories:
        """All that was added, prompts in their order."""
        parts, prompts = self._parts, [part.prompts for part in self._parts]
        return replace(
            parts[0],
            prompts=Prompts(tuple(request for p in prompts for request in p.requests), prompts[0].group),
            condition=joined([part.condition for part in parts]),
            **self._tensors,
            pieces=tuple(len(part.x0) for part in parts),
            live=tuple(sum(rows, ()) for rows in zip(*(part.live for part in parts), strict=True)),
        )


class Sampling:
    """Samples of a model in this process."""

    def __init__(self, model: VideoModel) -> None:
        self.model = model

    def sample(
        self, requests: Sequence[Request], seeds: Sequence[int], sampler: SamplerConfig, at_once: int
    ) -> Iterator[Videos]:
        """A chunk at a time, sampled when it is asked for."""
        for cut in sampling.runs(requests, at_once):
            yield sampling.videos(self.model, requests[cut], seeds[cut], sampler, at_once)


class LocalWork(Sampling):
    """A stage in this process. Owns its method, rewards and optimizer; see `work.Work`."""

    def __init__(self, model: VideoModel, spec: StageSpec) -> None:
        super().__init__(model)
        self.spec = spec
        self.method: Any = parts.build("method", spec.method) if spec.method else None
        self.panel = Panel.build(spec.rewards)
        roles = sorted(declared.needs(spec.method)) if spec.method else []
        model.reference.keep(roles)
        for role in roles:
            model.reference.start(role)
        self._roles = frozenset(roles)
        self.learner = Learner(of_experts(model.experts), spec.learner) if spec.learner else None
        own = spec.learner.micro_batch if spec.learner else 1
        self._micro_batch, self.micro_batch = own, spec.passes.micro_batch or own

    @property
    def updates(self) -> int:
        """Optimizer steps so far."""
        return self.learner.updates if self.learner else 0

    @property
    def broken(self) -> bool:
        """Whether an update left weights that are not finite."""
        return self.learner is not None and self.learner.broken

    def rollout(self, items: Sequence[Item], sampler: SamplerConfig, where: str, show: int = 0) -> Scored:
        """Item by item in order; with `overlap` each is scored while the next one is on its way."""
        before = [sum(len(item.prompts) for item in items[:i]) for i in range(len(items))]
        each = [(item, max(0, show - n)) for item, n in zip(items, before, strict=True)]
        whole = Gathered(sum(len(item.prompts) * item.prompts.group for item in items))
        if not self.spec.passes.overlap or len(items) == 1:  # in the threads that sample: others would be a new team
            return _joined([self._scored(self._rolled(i, sampler, whole), where, few) for i, few in each], whole)
        with ThreadPoolExecutor(max_workers=1, initializer=threads.release) as pool:
            waiting = [pool.submit(self._scored, self._rolled(i, sampler, whole), where, few) for i, few in each]
            return _joined([future.result() for future in waiting], whole)

    def _rolled(self, item: Item, sampler: SamplerConfig, whole: Gathered) -> tuple[Trajectories, float]:
        """Latents with their stochastic transitions, and how many seconds they took."""
        began, passes = time.perf_counter(), self.spec.passes
        with self.model.reference.on("sampled") if "sampled" in self._roles else nullcontext():
            how = item.prompts, sampler, item.exploration, item.seed, self.micro_batch
            trajectories = rollouts.rollout(self.model, *how, retain=passes.retain)
        return whole.add(replace(trajectories, merge=passes.merge)), time.perf_counter() - began

    def _scored(self, rolled: tuple[Trajectories, float], where: str, show: int) -> Scored:
        """Decode, score, and let the method see; of the videos nothing stays but the first of so many prompts."""
        (trajectories, rollout_s), clock = rolled, [time.perf_counter()]
        videos = sampling.decode(self.model, trajectories.x0, trajectories.condition, self.micro_batch)
        clock.append(time.perf_counter())
        asked = trajectories.prompts.repeated
        scores, weights = self.panel.score(videos, asked, where), self.panel.weights
        by_group = {name: values.reshape(-1, trajectories.prompts.group) for name, values in scores.items()}
        again = partial(self.panel.score, requests=asked, where=where)
        seen = self.method.see(videos, trajectories.prompts, trajectories.x0, again)
        clock.append(time.perf_counter())
        return Scored(
            trajectories=trajectories,
            rewards={name: values for name, values in by_group.items() if weights[name]},
            watched={name: values for name, values in by_group.items() if not weights[name]},
            weights=weights,
            seen=seen,
            shown=_shown(trajectories.prompts, videos, scores, show),
            seconds={"rollout": rollout_s, "decode": clock[1] - clock[0], "reward": clock[2] - clock[1]},
        )

    def score(
        self, requests: Sequence[Request], seeds: Sequence[int], sampler: SamplerConfig, where: str
    ) -> dict[str, Float[Tensor, " b"]]:
        """Scores of the present policy's own deterministic samples."""
        by_chunk, start = [], 0
        for videos in self.sample(requests, seeds, sampler, self.micro_batch):
            by_chunk.append(self.panel.score(videos, requests[start : start + len(videos)], where))
            start += len(videos)
            del videos  # before the next ones are made
        return {name: torch.cat([scores[name] for scores in by_chunk]) for name in by_chunk[0]}

    def utility(self, videos: Videos, requests: Sequence[Request], where: str) -> Float[Tensor, " b"]:
        """The mean of the rewards by their weights."""
        weights, scores = self.panel.weights, self.panel.score(videos, requests, where)
        return torch.stack([weights[k] * v for k, v in scores.items()]).sum(dim=0) / sum(weights.values())

    def learn(self, dataset: Any, n: int, draw: int, seed: int, where: str) -> dict[str, float]:
        """One optimizer step on clips or pairs."""
        assert self.spec.method is not None
        drawn = {Clips: dataset.clips, Pairs: dataset.pairs}[declared.consumes(self.spec.method)]
        return self.update(drawn(n, draw, self.model), seed, where)

    def update(self, batch: Any, seed: int, where: str) -> dict[str, float]:
        """One optimizer step."""
        assert self.learner is not None
        losses = self.method.losses(self.model, batch, seed, self._micro_batch)
        return self.learner.update(losses, where, batch, partial(soundness.broken_weight, self.model.experts))

    def after(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Let the method look after references and coefficients."""
        return self.method.after(self.model.reference, metrics)

    def averaged(self) -> AbstractContextManager[None]:
        """Within this context the model's weights are those that the stage would leave behind now."""
        return self.learner.averaged() if self.learner else nullcontext()

    def state(self) -> Groups:
        """Weights, moments and averages; frozen weights; what the method remembers."""
        own = {f"weights/{n}": p.detach() for n, p in of_experts(self.model.experts).items()}
        return {
            "learner": self.learner.state() if self.learner else own,
            "reference": self.model.reference.state(),
            "method": self._memory(),
        }

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], updates: int, adapter_off: Sequence[str]) -> None:
        """Restore what `state` gave."""
        if self.learner:
            own = {key: value.to(self.model.device) for key, value in tensors["learner"].items()}
            self.learner.load(own, updates)
        if self._roles:
            self.model.reference.load(tensors.get("reference", {}), adapter_off)
        if hasattr(self.method, "load"):
            self.method.load(tensors.get("method", {}))

    def mark(self) -> "Mark":
        """Something that changes if anything does that `state` gives."""
        frozen = self.model.reference
        versions = tuple(value._version for value in frozen.state().values())
        return Mark((self.updates, self.broken, frozen.adapter_off, versions), self._memory())

    def _memory(self) -> dict[str, Tensor]:
        return self.method.state() if hasattr(self.method, "state") else {}


class Mark:
    """A moment of a stage, to compare with another one; keeps copies of the method's few numbers only."""

    def __init__(self, counted: Any, remembered: Mapping[str, Tensor]) -> None:
        self._counted, self._remembered = counted, {key: value.clone() for key, value in remembered.items()}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Mark)
            and self._counted == other._counted
            and self._remembered.keys() == other._remembered.keys()
            and all(torch.equal(value, other._remembered[key]) for key, value in self._remembered.items())
        )


def _shown(prompts: Prompts, videos: Videos, scores: Mapping[str, Tensor], show: int) -> tuple[Shown, ...]:
    """The first member of the first prompts."""
    kept = []
    for p, request in enumerate(prompts.requests[:show]):
        at = p * prompts.group
        frames = (255 * videos.frames[at].clamp(0, 1)).round().to(torch.uint8)
        kept.append(Shown(request, 0, frames, videos.fps, {name: float(v[at]) for name, v in scores.items()}))
    return tuple(kept)


def _joined(scored: Sequence[Scored], whole: Gathered) -> Scored:
    """The pieces of an iteration as one."""
    first = scored[0]
    if len(scored) == 1:
        return first
    return replace(
        first,
        trajectories=whole.whole(),
        rewards={name: torch.cat([s.rewards[name] for s in scored]) for name in first.rewards},
        watched={name: torch.cat([s.watched[name] for s in scored]) for name in first.watched},
        seen={name: torch.cat([s.seen[name] for s in scored]) for name in first.seen},
        shown=tuple(shown for s in scored for shown in s.shown),
        seconds={name: sum(s.seconds[name] for s in scored) for name in first.seconds},
    )
