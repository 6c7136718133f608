"""The reverse process: sampling videos from noise, recording the stochastic steps, and replaying them for training.

Both directions call `core.transition.step` on the same values in batches of the same composition, so the policy ratio
of a fresh rollout is exactly 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from reelign.batches import Prompts, Trajectories
from reelign.core import rng, schedule, transition
from reelign.core.transition import Transition
from reelign.protocols import VideoModel


class SamplerConfig(BaseModel):
    """How noise becomes a video."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=16, ge=2)
    """Steps of the solver."""
    shift: float = Field(default=5.0, gt=0)
    """Time shift of the noise levels; more spends more steps at high noise."""
    guidance: float = Field(default=1.0, ge=0)
    """Classifier-free guidance; 1 is none and costs half."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """Which steps of a rollout are stochastic, and how.

    `first` holds each prompt's first stochastic step; all members of its group share it (iso-temporal). `width`
    neighbouring steps are stochastic. With `shared_noise` a group starts from one initial noise, and its deterministic
    steps before the window run once.
    """

    kind: str
    eta: float
    first: tuple[int, ...]
    width: int
    shared_noise: bool = True


@dataclass(slots=True)
class _Flight:
    """Samples on their way: where each is (`x`, its own next step `k`), and its text."""

    x: Tensor
    k: Tensor
    condition: Tensor


def chunks(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size`; the only place where a batch is cut, so rollout and replay cut alike."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def initial_noise(model: VideoModel, seeds: Sequence[int]) -> Float[Tensor, "b *latent"]:
    """Standard Gaussian latents, one per seed, drawn on the CPU."""
    return rng.normals(list(seeds), model.geometry.latent).to(model.device)


def _velocity(
    model: VideoModel, x: Tensor, sigma: Tensor, condition: Tensor, guidance: float, micro_batch: int
) -> Tensor:
    parts = [model.velocity(x[cut], sigma[cut], condition[cut], guidance) for cut in chunks(len(x), micro_batch)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _advance(model: VideoModel, flight: _Flight, until: Tensor, table: Tensor, guidance: float, micro: int) -> None:
    """Take deterministic steps in place until each sample stands before its own step `until`."""
    while bool((flight.k < until).any()):
        active = (flight.k < until).nonzero().squeeze(1)
        every = len(active) == len(flight.k)
        x = flight.x if every else flight.x[active]
        k = flight.k[active]
        condition = flight.condition if every else flight.condition[active]
        velocity = _velocity(model, x, table[k], condition, guidance, micro)
        moved = transition.ode_step(x, velocity, table[k], table[k + 1]).mean
        if every:
            flight.x = moved
        else:
            flight.x[active] = moved
        flight.k[active] += 1


@torch.no_grad()
def sample(
    model: VideoModel, texts: Sequence[str], seeds: Sequence[int], sampler: SamplerConfig, micro_batch: int = 32
) -> Float[Tensor, "b *latent"]:
    """Clean latents by the deterministic solver, one per text and seed."""
    table = schedule.sigmas(sampler.steps, sampler.shift).to(model.device)
    k = torch.zeros(len(texts), dtype=torch.long, device=model.device)
    flight = _Flight(initial_noise(model, seeds), k, model.encode(texts))
    _advance(model, flight, torch.full_like(k, sampler.steps), table, sampler.guidance, micro_batch)
    return flight.x


@torch.no_grad()
def rollout(
    model: VideoModel,
    prompts: Prompts,
    sampler: SamplerConfig,
    exploration: Exploration,
    seed: int,
    micro_batch: int = 32,
) -> Trajectories:
    """Sample groups of videos, each stochastic in the steps of its prompt's window and deterministic elsewhere.

    Args:
        model: the policy.
        prompts: p prompts of g members; sample b = p * g, prompt-major.
        sampler: solver and guidance; training replays with the same guidance.
        exploration: where and how the rollout is stochastic; `first` has one entry per prompt.
        seed: of this rollout; initial noise is named by (prompt id[, member]), step noise by (prompt id, member,
            place in the window).
        micro_batch: samples in one forward pass.

    Returns:
        The trajectories with the stochastic transitions only.

    Raises:
        ValueError: a window that holds the last step, which ends on data.
    """
    for first in set(exploration.first):
        schedule.window(sampler.steps, first, exploration.width)
    table = schedule.sigmas(sampler.steps, sampler.shift).to(model.device)
    group, device = prompts.group, model.device
    flight = _takeoff(model, prompts, exploration, seed, table, sampler.guidance, micro_batch)
    steps: list[tuple[Tensor, ...]] = []
    for offset in range(exploration.width):
        sigma, sigma_next = table[flight.k], table[flight.k + 1]
        noise = rng.normals(
            [rng.seed_for(seed, "transition", i, member, offset) for i in prompts.ids for member in range(group)],
            model.geometry.latent,
        ).to(device)
        velocity = _velocity(model, flight.x, sigma, flight.condition, sampler.guidance, micro_batch)
        here = transition.step(exploration.kind, flight.x, velocity, sigma, sigma_next, exploration.eta)
        x_next = transition.draw(here, noise)
        log_prob = transition.log_prob(here, x_next)
        steps.append((flight.x, x_next, sigma, sigma_next, log_prob, here.mean, here.std))
        flight.x, flight.k = x_next.clone(), flight.k + 1
    _advance(model, flight, torch.full_like(flight.k, sampler.steps), table, sampler.guidance, micro_batch)
    x, x_next, sigma, sigma_next, log_prob, mean, std = (torch.stack(column) for column in zip(*steps, strict=True))
    return Trajectories(
        prompts=prompts,
        x0=flight.x,
        x=x,
        x_next=x_next,
        sigma=sigma,
        sigma_next=sigma_next,
        log_prob=log_prob,
        mean=mean,
        std=std,
        kind=exploration.kind,
        eta=exploration.eta,
        guidance=sampler.guidance,
    )


def _takeoff(
    model: VideoModel,
    prompts: Prompts,
    exploration: Exploration,
    seed: int,
    table: Tensor,
    guidance: float,
    micro_batch: int,
) -> _Flight:
    """The deterministic steps before the windows: once a prompt with a shared initial noise, else once a sample."""
    group = prompts.group
    condition = model.encode(prompts.texts)
    first = torch.tensor(exploration.first, device=model.device)
    if exploration.shared_noise:
        seeds = [rng.seed_for(seed, "initial", i) for i in prompts.ids]
        flight = _Flight(initial_noise(model, seeds), torch.zeros_like(first), condition)
        _advance(model, flight, first, table, guidance, micro_batch)
        return _Flight(
            flight.x.repeat_interleave(group, dim=0),
            flight.k.repeat_interleave(group),
            condition.repeat_interleave(group, dim=0),
        )
    seeds = [rng.seed_for(seed, "initial", i, member) for i in prompts.ids for member in range(group)]
    first = first.repeat_interleave(group)
    flight = _Flight(initial_noise(model, seeds), torch.zeros_like(first), condition.repeat_interleave(group, dim=0))
    _advance(model, flight, first, table, guidance, micro_batch)
    return flight


def replay(
    model: VideoModel, trajectories: Trajectories, k: int, cut: slice, condition: Float[Tensor, "b n d"]
) -> Transition:
    """The policy's present transition at recorded step `k` of the samples in `cut`, with a gradient."""
    x, sigma, sigma_next = trajectories.x[k, cut], trajectories.sigma[k, cut], trajectories.sigma_next[k, cut]
    velocity = model.velocity(x, sigma, condition[cut], trajectories.guidance)
    return transition.step(trajectories.kind, x, velocity, sigma, sigma_next, trajectories.eta)
