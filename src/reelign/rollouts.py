"""Rollouts: sampling with recorded stochastic steps, which are replayed for training.

Both directions call `core.transition.step` on the same values in batches of the same composition, so the policy ratio
of a fresh rollout is exactly 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reelign.batches import Condition, Prompts, Trajectories
from reelign.core import rng, schedule, transition
from reelign.core.transition import Transition
from reelign.protocols import VideoModel
from reelign.sampling import (
    Course,
    Flight,
    SamplerConfig,
    advance,
    chunks,
    encode,
    initial_noise,
    refuse_broken,
    velocity_of,
)

BY_SAMPLE = ("x", "x_next", "sigma", "sigma_next", "log_prob", "mean", "std", "index")
"""Fields of trajectories of which each recorded step has a row."""


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
    course = Course.of(model, sampler, condition.geometry, micro_batch)
    flight = _takeoff(course, prompts, condition, exploration, seed)
    recorded = range(exploration.width) if exploration.record is None else exploration.record
    steps: list[_Step] = []
    for offset in range(exploration.width):
        step = _explore(course, flight, prompts, exploration, (seed, offset), retain)
        if offset in recorded:
            steps.append(step)
        flight.x, flight.k = step.x_next.clone(), flight.k + 1
    _land(course, flight, exploration)
    refuse_broken(model, flight.x)
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
    course: Course, prompts: Prompts, exploration: Exploration, flight: Flight, steps: list[_Step]
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
    course: Course, flight: Flight, prompts: Prompts, exploration: Exploration, name: tuple[int, int], retain: bool
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


def _land(course: Course, flight: Flight, exploration: Exploration) -> None:
    """The deterministic steps after the windows."""
    table, steps = course.table, course.steps
    if exploration.tail is None:
        advance(course, flight, torch.full_like(flight.k, steps))
        return
    # Every sample leaves its window at a level of its own and takes its own `tail` levels down to 0.
    left = steps - flight.k
    count = torch.minimum(left, torch.full_like(left, exploration.tail))
    for j in range(exploration.tail):
        at = flight.k + torch.div(left * j, count, rounding_mode="floor")
        to = flight.k + torch.div(left * (j + 1), count, rounding_mode="floor")
        at, to = at.clamp(max=steps), to.clamp(max=steps)
        velocity = velocity_of(course, flight.x, table[at], flight.condition)
        flight.x = transition.ode_step(flight.x, velocity, table[at], table[to]).mean
    flight.k = torch.full_like(flight.k, steps)


def _stack(rows: list[Tensor], like: Tensor) -> Tensor:
    """One row a recorded step; `[0 ...]` of the shape of `like` where there is none."""
    return torch.stack(rows) if rows else like.new_zeros(0, *like.shape)


def _takeoff(course: Course, prompts: Prompts, condition: Condition, exploration: Exploration, seed: int) -> Flight:
    """The deterministic steps before the windows: once a prompt with a shared initial noise, else once a sample."""
    model, group, geometry = course.model, prompts.group, condition.geometry
    first = torch.tensor(exploration.first, device=model.device)
    if exploration.shared_noise:
        seeds = [rng.seed_for(seed, "initial", i) for i in prompts.ids]
        flight = Flight(initial_noise(model, seeds, geometry), torch.zeros_like(first), condition)
        advance(course, flight, first)
        return Flight(
            flight.x.repeat_interleave(group, dim=0),
            flight.k.repeat_interleave(group),
            condition.repeated(group),
        )
    seeds = [rng.seed_for(seed, "initial", i, member) for i in prompts.ids for member in range(group)]
    first = first.repeat_interleave(group)
    flight = Flight(initial_noise(model, seeds, geometry), torch.zeros_like(first), condition.repeated(group))
    advance(course, flight, first)
    return flight


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
        **{name: getattr(trajectories, name)[:, rows] for name in BY_SAMPLE},
        pieces=(),
        live=(),
    )


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
