"""The reverse process: videos from noise by a deterministic solver, and how batches are cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from reelign import pages, soundness
from reelign.batches import Condition, Geometry, Request, Videos
from reelign.core import rng, transition
from reelign.protocols import SamplerConfig as SamplerConfig
from reelign.protocols import VideoModel


@dataclass(frozen=True, slots=True)
class Course:
    """What all steps of a rollout share: the policy, the noise levels, the guidance, and samples in a forward pass."""

    model: VideoModel
    table: Tensor
    guidance: float
    micro_batch: int

    @classmethod
    def of(cls, model: VideoModel, sampler: SamplerConfig, geometry: Geometry, micro_batch: int) -> "Course":
        """With the noise levels of a sampler and a size."""
        table = model.levels(sampler, geometry).to(model.device)
        return cls(model, table, sampler.guidance, micro_batch)

    @property
    def steps(self) -> int:
        """Of the solver."""
        return len(self.table) - 1


@dataclass(slots=True)
class Flight:
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


def velocity_of(course: Course, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
    """The policy's, a forward pass of as many samples as the course allows at a time."""
    cuts = chunks(len(x), course.micro_batch)
    parts = [course.model.velocity(x[cut], sigma[cut], condition[cut], course.guidance) for cut in cuts]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def advance(course: Course, flight: Flight, until: Tensor) -> None:
    """Take deterministic steps in place until each sample stands before its own step `until`."""
    table = course.table
    while bool((flight.k < until).any()):
        active = (flight.k < until).nonzero().squeeze(1)
        every = len(active) == len(flight.k)
        x = flight.x if every else flight.x[active]
        k = flight.k[active]
        condition = flight.condition if every else flight.condition[active]
        velocity = velocity_of(course, x, table[k], condition)
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
    flight = Flight(initial_noise(model, seeds, condition.geometry), k, condition)
    advance(Course.of(model, sampler, condition.geometry, micro_batch), flight, torch.full_like(k, sampler.steps))
    refuse_broken(model, flight.x)
    return flight.x


def videos(
    model: VideoModel, requests: Sequence[Request], seeds: Sequence[int], sampler: SamplerConfig, micro_batch: int = 32
) -> Videos:
    """A video of each request of one size and seed, on the host; see `sample` and `decode` for what is raised."""
    condition = encode(model, requests)
    return decode(model, sample(model, condition, seeds, sampler, micro_batch), condition, micro_batch)


def refuse_broken(model: VideoModel, x0: Tensor) -> None:
    """Stop at sampled latents that are not finite."""
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
