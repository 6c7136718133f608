"""The reverse process: sampling videos from noise, recording the stochastic steps, and replaying them for training.

Both directions call `core.transition.step` on the same values in batches of the same composition, so the policy ratio
of a fresh rollout is exactly 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from reelign import pages, soundness
from reelign.batches import Condition, Geometry, Prompts, Request, Trajectories, Videos, joined
from reelign.core import rng, schedule, transition
from reelign.core.transition import Transition
from reelign.parts import Settings
from reelign.protocols import VideoModel


class SamplerConfig(Settings):
    """How noise becomes a video."""

    steps: int = Field(default=16, ge=2, le=1000)
    """Steps of the solver."""
    shift: float = Field(default=5.0, ge=0.01, le=100)
    """Time shift of the noise levels; more spends more steps at high noise."""
    guidance: float = Field(default=1.0, ge=0, le=100)
    """Classifier-free guidance; 1 is none and costs half."""
    boundary: float | None = Field(default=None, gt=0, lt=1)
    """Noise level from which on a model of two experts uses the other one; no stochastic window may lie across it."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """Which steps of a rollout are stochastic, and how.

    `first` holds each prompt's first stochastic step; all members of its group share it (iso-temporal). `width`
    neighbouring steps are stochastic; 0 makes the whole rollout deterministic. With `shared_noise` a group starts from
    one initial noise, and its deterministic steps before the window run once. Of the window the steps `record` are
    kept for training (all of them if it is None). With `antithetic` members 0 and 1, 2 and 3, ... get opposite noise.
    `tail` limits the deterministic steps after the window; fewer cost less and end less exactly.
    """

    kind: str
    eta: float
    first: tuple[int, ...]
    width: int
    shared_noise: bool = True
    record: tuple[int, ...] | None = None
    antithetic: bool = False
    tail: int | None = None


@dataclass(frozen=True, slots=True)
class _Course:
    """What all steps of a rollout share: the policy, the noise levels, the guidance, and samples in a forward pass."""

    model: VideoModel
    table: Tensor
    guidance: float
    micro_batch: int

    @classmethod
    def of(cls, model: VideoModel, sampler: SamplerConfig, geometry: Geometry, micro_batch: int) -> "_Course":
        table = model.levels(sampler, geometry).to(model.device)
        return cls(model, table, sampler.guidance, micro_batch)

    @property
    def steps(self) -> int:
        return len(self.table) - 1


@dataclass(slots=True)
class _Flight:
    """Samples on their way: where each is (`x`, its own next step `k`), and what it is to show."""

    x: Tensor
    k: Tensor
    condition: Condition


def chunks(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size`; the only place where a batch is cut, so rollout and replay cut alike."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def runs(requests: Sequence[Request], most: int) -> Iterator[slice]:
    """Slices of at most `most` neighbouring requests that are of one size."""
    start = 0
    for stop in range(1, len(requests) + 1):
        last = stop == len(requests)
        if last or stop - start == most or requests[stop].size != requests[start].size:
            yield slice(start, stop)
            start = stop


def encode(model: VideoModel, requests: Sequence[Request]) -> Condition:
    """Requests of one size as the model takes them."""
    size = requests[0].size
    return model.encode(requests, model.geometry if size is None else model.sized(size))


def initial_noise(model: VideoModel, seeds: Sequence[int], geometry: Geometry) -> Float[Tensor, "b *latent"]:
    """Standard Gaussian latents, one per seed, drawn on the CPU."""
    return rng.normals(list(seeds), geometry.latent).to(model.device)


def _velocity(course: _Course, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
    cuts = chunks(len(x), course.micro_batch)
    parts = [course.model.velocity(x[cut], sigma[cut], condition[cut], course.guidance) for cut in cuts]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _advance(course: _Course, flight: _Flight, until: Tensor) -> None:
    """Take deterministic steps in place until each sample stands before its own step `until`."""
    table = course.table
    while bool((flight.k < until).any()):
        active = (flight.k < until).nonzero().squeeze(1)
        every = len(active) == len(flight.k)
        x = flight.x if every else flight.x[active]
        k = flight.k[active]
        condition = flight.condition if every else flight.condition[active]
        velocity = _velocity(course, x, table[k], condition)
        moved = transition.ode_step(x, velocity, table[k], table[k + 1]).mean
        if every:
            flight.x = moved
        else:
            flight.x[active] = moved
        flight.k[active] += 1


@torch.no_grad()
def sample(
    model: VideoModel, condition: Condition, seeds: Sequence[int], sampler: SamplerConfig, micro_batch: int = 32
) -> Float[Tensor, "b *latent"]:
    """Clean latents by the deterministic solver, one per sample and seed.

    Raises:
        RunStopped: latents that are not finite.
    """
    k = torch.zeros(len(condition), dtype=torch.long, device=model.device)
    flight = _Flight(initial_noise(model, seeds, condition.geometry), k, condition)
    _advance(_Course.of(model, sampler, condition.geometry, micro_batch), flight, torch.full_like(k, sampler.steps))
    _refuse_broken(model, flight.x)
    return flight.x


def videos(
    model: VideoModel, requests: Sequence[Request], seeds: Sequence[int], sampler: SamplerConfig, micro_batch: int = 32
) -> Videos:
    """A video of each request of one size and seed, on the host; see `sample` and `decode` for what is raised."""
    condition = encode(model, requests)
    return decode(model, sample(model, condition, seeds, sampler, micro_batch), condition, micro_batch)


def _refuse_broken(model: VideoModel, x0: Tensor) -> None:
    hint = "look at the text encoder's weights, the precision and the guidance"
    soundness.refuse(x0, "the sampled latents", model.experts, hint)


def decode(model: VideoModel, x0: Float[Tensor, "b *latent"], condition: Condition, micro_batch: int) -> Videos:
    """Latents to videos on the host, `micro_batch` at a time.

    Raises:
        RunStopped: frames that are not finite.
    """
    made = (model.decode(x0[cut], condition[cut]).frames for cut in chunks(len(x0), micro_batch))
    first = next(made).cpu()
    frames = first.contiguous()
    if len(first) < len(x0):
        frames = pages.empty((len(x0), *first.shape[1:]), first.dtype, first.device)
        for cut, part in zip(chunks(len(x0), micro_batch), chain([first], made), strict=True):
            frames[cut] = part
    soundness.refuse(frames, "the decoded frames", model.experts, "look at the weights of the VAE")
    return Videos(frames, condition.geometry.fps)


@torch.no_grad()
def rollout(
    model: VideoModel,
    prompts: Prompts,
    sampler: SamplerConfig,
    exploration: Exploration,
    seed: int,
    micro_batch: int = 32,
    *,
    retain: bool = False,
) -> Trajectories:
    """Sample groups of videos, each stochastic in the steps of its prompt's window and deterministic elsewhere.

    Args:
        model: the policy.
        prompts: p prompts of g members and one size; sample b = p * g, prompt-major.
        sampler: solver and guidance; training replays with the same guidance.
        exploration: where and how the rollout is stochastic; `first` has one entry per prompt.
        seed: of this rollout; initial noise is named by (prompt id[, member]), step noise by (prompt id, member,
            place in the window).
        micro_batch: samples in one forward pass.
        retain: keep the graph of each recorded step, so that one update needs no second forward pass (LeanGRPO, arXiv
            2609.03528). Costs the memory of all their activations.

    Returns:
        The trajectories with the recorded stochastic transitions only.

    Raises:
        ValueError: a window that holds the last step, which ends on data.
        RunStopped: latents that are not finite.
    """
    if exploration.width:
        for first in set(exploration.first):
            schedule.window(sampler.steps, first, exploration.width)
    condition = encode(model, prompts.requests)
    course = _Course.of(model, sampler, condition.geometry, micro_batch)
    flight = _takeoff(course, prompts, condition, exploration, seed)
    recorded = range(exploration.width) if exploration.record is None else exploration.record
    steps: list[_Step] = []
    for offset in range(exploration.width):
        step = _explore(course, flight, prompts, exploration, (seed, offset), retain)
        if offset in recorded:
            steps.append(step)
        flight.x, flight.k = step.x_next.clone(), flight.k + 1
    _land(course, flight, exploration)
    _refuse_broken(model, flight.x)
    return _trajectories(course, prompts, exploration, flight, steps)


@dataclass(frozen=True, slots=True)
class _Step:
    """One stochastic step of all samples; `live` are its transitions by micro-batch, with their graphs."""

    k: Tensor
    x: Tensor
    x_next: Tensor
    here: Transition
    live: tuple[Transition, ...]


def _trajectories(
    course: _Course, prompts: Prompts, exploration: Exploration, flight: _Flight, steps: list[_Step]
) -> Trajectories:
    """What is kept of a rollout that has landed."""
    table = course.table
    return Trajectories(
        prompts=prompts,
        condition=flight.condition,
        x0=flight.x,
        x=_stack([s.x for s in steps], flight.x),
        x_next=_stack([s.x_next for s in steps], flight.x),
        sigma=_stack([table[s.k] for s in steps], table[flight.k]),
        sigma_next=_stack([table[s.k + 1] for s in steps], table[flight.k]),
        log_prob=_stack([transition.log_prob(s.here, s.x_next) for s in steps], table[flight.k]),
        mean=_stack([s.here.mean for s in steps], flight.x),
        std=_stack([s.here.std for s in steps], table[flight.k]),
        kind=exploration.kind,
        eta=exploration.eta,
        guidance=course.guidance,
        table=table,
        index=_stack([s.k for s in steps], flight.k),
        live=tuple(s.live for s in steps if s.live),
    )


def _explore(
    course: _Course, flight: _Flight, prompts: Prompts, exploration: Exploration, name: tuple[int, int], retain: bool
) -> _Step:
    """Take one stochastic step with named noise; the flight itself stays where it is."""
    model, table, (seed, offset) = course.model, course.table, name
    group, alike = prompts.group, 2 if exploration.antithetic else 1
    seeds = [rng.seed_for(seed, "transition", i, m - m % alike, offset) for i in prompts.ids for m in range(group)]
    noise = rng.normals(seeds, flight.x.shape[1:]).to(model.device)
    if exploration.antithetic:
        noise[1::2].neg_()
    sigma, sigma_next = table[flight.k], table[flight.k + 1]
    live: list[Transition] = []
    with torch.set_grad_enabled(retain):
        for cut in chunks(len(flight.x), course.micro_batch):
            x = flight.x[cut]
            velocity = model.velocity(x, sigma[cut], flight.condition[cut], course.guidance)
            live.append(transition.step(exploration.kind, x, velocity, sigma[cut], sigma_next[cut], exploration.eta))
    mean, std = torch.cat([t.mean.detach() for t in live]), torch.cat([t.std for t in live])
    here = Transition(mean, std)
    return _Step(flight.k, flight.x, transition.draw(here, noise), here, tuple(live) if retain else ())


def _land(course: _Course, flight: _Flight, exploration: Exploration) -> None:
    """The deterministic steps after the windows."""
    table, steps = course.table, course.steps
    if exploration.tail is None:
        _advance(course, flight, torch.full_like(flight.k, steps))
        return
    # Every sample leaves its window at a level of its own and takes its own `tail` levels down to 0.
    left = steps - flight.k
    count = torch.minimum(left, torch.full_like(left, exploration.tail))
    for j in range(exploration.tail):
        at = flight.k + torch.div(left * j, count, rounding_mode="floor")
        to = flight.k + torch.div(left * (j + 1), count, rounding_mode="floor")
        at, to = at.clamp(max=steps), to.clamp(max=steps)
        velocity = _velocity(course, flight.x, table[at], flight.condition)
        flight.x = transition.ode_step(flight.x, velocity, table[at], table[to]).mean
    flight.k = torch.full_like(flight.k, steps)


def _stack(rows: list[Tensor], like: Tensor) -> Tensor:
    """One row a recorded step; `[0 ...]` of the shape of `like` where there is none."""
    return torch.stack(rows) if rows else like.new_zeros(0, *like.shape)


def _takeoff(course: _Course, prompts: Prompts, condition: Condition, exploration: Exploration, seed: int) -> _Flight:
    """The deterministic steps before the windows: once a prompt with a shared initial noise, else once a sample."""
    model, group, geometry = course.model, prompts.group, condition.geometry
    first = torch.tensor(exploration.first, device=model.device)
    if exploration.shared_noise:
        seeds = [rng.seed_for(seed, "initial", i) for i in prompts.ids]
        flight = _Flight(initial_noise(model, seeds, geometry), torch.zeros_like(first), condition)
        _advance(course, flight, first)
        return _Flight(
            flight.x.repeat_interleave(group, dim=0),
            flight.k.repeat_interleave(group),
            condition.repeated(group),
        )
    seeds = [rng.seed_for(seed, "initial", i, member) for i in prompts.ids for member in range(group)]
    first = first.repeat_interleave(group)
    flight = _Flight(initial_noise(model, seeds, geometry), torch.zeros_like(first), condition.repeated(group))
    _advance(course, flight, first)
    return flight


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
        for name in ("x0", *_BY_SAMPLE) if count < self._n else ():
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


def cuts(trajectories: Trajectories, micro_batch: int) -> Iterator[slice]:
    """Slices of at most `micro_batch` samples, each within one piece of the rollout, so that replays are cut alike."""
    start = 0
    for piece in trajectories.pieces or (len(trajectories.x0),):
        yield from (slice(start + cut.start, start + cut.stop) for cut in chunks(piece, micro_batch))
        start += piece


def select(trajectories: Trajectories, rows: Int[Tensor, " n"]) -> Trajectories:
    """The recorded transitions of some samples only, of their prompts as groups of one.

    A network whose samples depend on the size of their batch in the last bits then replays them with a ratio of 1 up
    to rounding.
    """
    prompts, at = trajectories.prompts, rows.tolist()
    return replace(
        trajectories,
        prompts=Prompts(tuple(prompts.requests[i // prompts.group] for i in at)),
        condition=trajectories.condition[rows],
        x0=trajectories.x0[rows],
        **{name: getattr(trajectories, name)[:, rows] for name in _BY_SAMPLE},
        pieces=(),
        live=(),
    )


_BY_SAMPLE = ("x", "x_next", "sigma", "sigma_next", "log_prob", "mean", "std", "index")


def transit(
    model: VideoModel,
    trajectories: Trajectories,
    x: Float[Tensor, "b *latent"],
    sigma: Float[Tensor, " b"],
    sigma_next: Float[Tensor, " b"],
    condition: Condition,
) -> Transition:
    """The policy's present transition at given places, of the kind, strength and guidance that were recorded."""
    velocity = model.velocity(x, sigma, condition, trajectories.guidance)
    return transition.step(trajectories.kind, x, velocity, sigma, sigma_next, trajectories.eta)
