"""The policy-gradient loss: replay each recorded transition, take its log-ratio, and weigh it by the credit."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from reelign import rollouts
from reelign.batches import Credited, Loss, Trajectories
from reelign.core import policy_loss, transition
from reelign.core.flow import expand_to
from reelign.core.transition import Transition
from reelign.engines import penalty
from reelign.engines.slots import Losses, Slots, StepGap
from reelign.protocols import VideoModel
from reelign.sampling import chunks


@dataclass(frozen=True, slots=True)
class Cell:
    """What one forward pass replays: neighbouring recorded steps of neighbouring samples, flattened to b rows."""

    x: Float[Tensor, "b *latent"]
    x_next: Float[Tensor, "b *latent"]
    sigma: Float[Tensor, " b"]
    sigma_next: Float[Tensor, " b"]
    log_prob: Float[Tensor, " b"]
    sampled: Transition
    """The transition as it was when it was drawn."""
    index: Tensor
    sample: Tensor
    """Which sample of the batch each row is."""


LogRatio = Callable[[Transition, Cell, bool], Tensor]
"""(transition now, cell, dense) -> [b], or [b f h w] when dense."""
Surrogate = Callable[[Tensor, Tensor, float, Callable[[], Float[Tensor, " b"]]], Tensor]
"""(log-ratio, advantage, clip, divergence from the policy that sampled) -> losses of the shape of the log-ratio."""
StepWeight = Callable[[str, Float[Tensor, " n"], Float[Tensor, " n"], float], Float[Tensor, " n"]]
"""(kind, sigma, sigma_next, eta) of all stochastic steps of the sampler -> weights with mean 1."""


def plain(here: Transition, cell: Cell, dense: bool) -> Tensor:
    """Log-probability now minus when it was drawn: a mean over elements, or a sum over channels for each place."""
    if dense:
        return transition.log_prob_dense(here, cell.x_next) - transition.log_prob_dense(cell.sampled, cell.x_next)
    return transition.log_prob(here, cell.x_next) - cell.log_prob


def centred(here: Transition, cell: Cell, dense: bool) -> Tensor:
    """The plain log-ratio without its one-sided drift and with one width for all steps (GRPO-Guard, 2510.22319)."""
    log_ratio = plain(here, cell, dense)
    if not dense:
        return policy_loss.guarded(log_ratio, transition.step_kl(here, cell.sampled), here.std)
    std = expand_to(here.std, log_ratio)
    return (log_ratio + (here.mean - cell.sampled.mean).square().sum(dim=1) / (2 * std.square())) * std


def clipped(log_ratio: Tensor, advantage: Tensor, clip: float, divergence: Callable[[], Tensor]) -> Tensor:
    """PPO's clip."""
    return policy_loss.clipped(log_ratio, advantage, clip)


def losses(
    *, log_ratio: LogRatio = plain, surrogate: Surrogate = clipped, step_weight: StepWeight | None = None
) -> Losses:
    """The losses of a policy-gradient method: one for each cell; idle samples are left out of sum and denominator.

    Args:
        log_ratio: how far each transition's probability has moved.
        surrogate: the loss of it.
        step_weight: weights over noise levels for the surrogate; None is 1 everywhere.
    """

    def of_rollout(
        slots: Slots, memory: Mapping[str, Tensor], model: VideoModel, batch: Credited, seed: int, micro_batch: int
    ) -> Iterator[Loss]:
        batch = _without_idle_members(batch)
        trajectories = batch.trajectories
        total = int(batch.teaches.sum()) * len(trajectories.x)
        if total == 0:
            return
        weights = _step_weights(step_weight, trajectories, slots)
        dense = batch.advantage.ndim > 1
        clip = slots.dense_clip if dense else slots.clip
        for cell, live in _cells(trajectories, micro_batch):
            teaches = batch.teaches[cell.sample]
            if not bool(teaches.any()):
                yield Loss.idle()
                continue
            # Whole cells are replayed, idle samples too: the same batch composition gives the same bits.
            here = live or _now(model, trajectories, cell)
            moved = log_ratio(here, cell, dense)[teaches]
            credit = batch.advantage[cell.sample][teaches]
            each = surrogate(moved, credit, clip, partial(_divergence, here, cell, teaches))
            if dense:
                # Places sum over channels; divided by them, equal credit everywhere gives the scalar loss's gradient.
                each = each.flatten(1).mean(dim=1) / cell.x.shape[1]
            metrics = policy_loss.diagnostics(moved, credit, clip)
            metrics |= {"max_abs_log_ratio": moved.detach().abs().max()}
            if weights is not None:
                each = each * weights[cell.index][teaches]
            if slots.penalties:
                gap = _gap(model, trajectories, cell, here)
                each = penalty.added(each, gap, slots, memory, batch, cell.sample, metrics)
            yield Loss(each.sum() / total, int(teaches.sum()) / total, metrics)

    return of_rollout


def _cells(trajectories: Trajectories, micro_batch: int) -> Iterator[tuple[Cell, Transition | None]]:
    """The recorded transitions in pieces that one forward pass takes, with their kept graphs where there are any."""
    count, n = trajectories.index.shape
    at_once = max(1, micro_batch // n) if trajectories.merge else 1
    for ks in chunks(count, at_once):
        for i, cut in enumerate(rollouts.cuts(trajectories, micro_batch)):
            live = trajectories.live[ks.start][i] if trajectories.live else None
            yield _cell(trajectories, ks, cut), live


def _cell(t: Trajectories, ks: slice, cut: slice) -> Cell:
    x, x_next, mean = (v[ks, cut].flatten(0, 1) for v in (t.x, t.x_next, t.mean))
    sigma, sigma_next, log_prob, std, index = (
        v[ks, cut].flatten() for v in (t.sigma, t.sigma_next, t.log_prob, t.std, t.index)
    )
    sample = torch.arange(cut.start, cut.stop, device=index.device).repeat(len(index) // (cut.stop - cut.start))
    return Cell(x, x_next, sigma, sigma_next, log_prob, Transition(mean, std), index, sample)


def _now(model: VideoModel, t: Trajectories, cell: Cell) -> Transition:
    """The policy's present transition at a cell, with a gradient."""
    return rollouts.transit(model, t, cell.x, cell.sigma, cell.sigma_next, t.condition[cell.sample])


def _gap(model: VideoModel, t: Trajectories, cell: Cell, here: Transition) -> StepGap:
    with torch.no_grad(), model.reference.on():
        there = _now(model, t, cell)
    return StepGap(here, there, transition.gain(t.kind, cell.sigma, cell.sigma_next, t.eta))


def _divergence(here: Transition, cell: Cell, teaches: Tensor) -> Float[Tensor, " n"]:
    return transition.step_kl(here, cell.sampled)[teaches]


def _step_weights(step_weight: StepWeight | None, t: Trajectories, slots: Slots) -> Float[Tensor, " n"] | None:
    """A weight for each step of the table; their mean is 1 over the steps that can be stochastic."""
    if step_weight is None:
        return None
    steps = torch.tensor(sorted({k for window in slots.select.windows(len(t.table) - 1) for k in window}))
    weights = torch.zeros_like(t.table)
    weights[steps] = step_weight(t.kind, t.table[steps], t.table[steps + 1], t.eta)
    return weights


def _without_idle_members(batch: Credited) -> Credited:
    """Idle members of groups whose other members teach cost no forward pass."""
    by_group = batch.teaches.reshape(-1, batch.trajectories.prompts.group)
    if batch.trajectories.live or torch.equal(by_group.any(dim=1), by_group.all(dim=1)):
        return batch
    rows = batch.teaches.nonzero().squeeze(1)
    return replace(
        batch,
        trajectories=rollouts.select(batch.trajectories, rows),
        advantage=batch.advantage[rows],
        teaches=batch.teaches[rows],
        restraint=None if batch.restraint is None else batch.restraint[rows],
    )
