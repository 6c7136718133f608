"""From rewards to credit: the slots in their order."""

from dataclasses import replace

import torch

from reelign import sampling
from reelign.batches import Credited, Scored
from reelign.core import advantage
from reelign.engines.slots import Given, Notes, Slots, user_weights


def credit(scored: Scored, slots: Slots, notes: Notes) -> Credited:
    """Shape the rewards, compare and combine them, and share the result out over samples and places."""
    notes.metrics, notes.scratch = {}, {}
    raw = scored.rewards
    for shape in slots.shape:
        scored = shape(scored, notes)
    weights = slots.weigh(scored, notes) if slots.weigh else user_weights(scored)
    combined = advantage.clamp(slots.combine(scored, weights, notes), slots.limit)
    ranks = torch.stack([advantage.informative(r) for r in raw.values()]).any(dim=0)
    keep = ranks & (combined != 0).any(dim=1)
    given = Given(combined.flatten(), keep.repeat_interleave(combined.shape[1]))
    for spread in slots.spread:
        given = spread(given, scored, notes)
    metrics = {"idle_groups": 1 - keep.float().mean().item(), **notes.metrics}
    whole = Credited(scored.trajectories, given.advantage, given.kept, metrics, given.restraint)
    passed_over = not torch.equal(given.kept, keep.repeat_interleave(combined.shape[1]))
    return _only(whole) if passed_over and not scored.trajectories.live else whole


def _only(batch: Credited) -> Credited:
    """The samples that train, without those that were passed over, which then cost no forward pass."""
    rows = batch.informative.nonzero().squeeze(1)
    return replace(
        batch,
        trajectories=sampling.select(batch.trajectories, rows),
        advantage=batch.advantage[rows],
        informative=batch.informative[rows],
        restraint=None if batch.restraint is None else batch.restraint[rows],
    )
