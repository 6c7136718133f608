"""When older weights follow the policy: those that roll out, by a decay; a reference, all at once."""

from collections.abc import Mapping

import torch

from reelign.engines.slots import After, Notes
from reelign.weights import Reference


def after(start: float, slope: float, most: float) -> After:
    """After each iteration the sampling weights move to the policy's, by a decay that rises with the iterations.

    ``decay = min(start + slope n, most)`` at iteration n from 0; 0 makes the next rollout wholly on-policy
    (DiffusionNFT, arXiv 2509.16117; CRD, 2603.14128).
    """

    def move(reference: Reference, metrics: Mapping[str, float], notes: Notes) -> None:
        n = notes.memory.get("follow/iterations", torch.zeros(()))
        decay = min(start + slope * float(n), most)
        reference.follow(decay, "sampled")
        notes.memory["follow/iterations"] = n + 1
        notes.metrics["sampled_decay"] = decay

    return move


def is_due(notes: Notes, key: str, every: int, far: bool) -> bool:
    """Whether a reference is taken anew now: after so many iterations, which memory counts, or since it is far away."""
    since = notes.memory[key] + 1
    due = far or int(since) >= every
    notes.memory[key] = torch.zeros(()) if due else since
    return due
