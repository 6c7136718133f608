"""When the weights that roll out follow the policy: forward-process methods learn relative to them."""

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
