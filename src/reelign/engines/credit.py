"""From rewards to credit: the slots in their order."""

import torch

from reelign.batches import Credited, Scored
from reelign.core import advantage
from reelign.engines.slots import Given, Notes, Slots, user_weights


def credit(scored: Scored, slots: Slots, notes: Notes) -> Credited:
    """Shape the rewards, compare and combine them, and share the result out over samples and places."""
    notes.metrics, notes.scratch = {}, {}
    raw = scored.rewards
    # Weights look at rewards as they were scored: how far a prompt has come is a matter of their own scale.
    weights = slots.weigh(scored, notes) if slots.weigh else user_weights(scored)
    for shape in slots.shape:
        scored = shape(scored, notes)
    combined = advantage.clamp(slots.combine(scored, weights, notes), slots.limit)
    ranks = torch.stack([advantage.teaches(r) for r in raw.values()]).any(dim=0)
    teaches = ranks & (combined != 0).any(dim=1)
    # Rewards are compared on the host, where they were scored; the loss is where the samples are.
    device = scored.trajectories.x0.device
    given = Given(combined.flatten().to(device), teaches.repeat_interleave(combined.shape[1]).to(device))
    for allocate in slots.allocate:
        given = allocate(given, scored, notes)
    metrics = {"idle_groups": 1 - teaches.float().mean().item(), **notes.metrics}
    return Credited(scored.trajectories, given.advantage, given.teaches, metrics, given.restraint)
