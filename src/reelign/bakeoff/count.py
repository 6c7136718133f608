"""Compute in units that no machine and no batch size changes: forward passes of the network over one sample."""

import time
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.batches import Condition, Videos
from reelign.protocols import VideoModel

FORWARD, TRAINED, RECOMPUTED = 1, 3, 4
"""A sample without gradient; with it (a backward pass costs two forward passes); with activations computed twice."""


class Counted:
    """A model that counts what is asked of it; everything but the counts is the model's own.

    `units` are forward-units: a call of `velocity` costs its samples, twice with guidance, times 3 if its result
    carries a gradient (4 with activation checkpointing) and 1 if not. A call is charged when it is made: a result that
    carries a gradient costs 3 even if no backward pass ever follows, and one that a rollout keeps for a later update
    costs 3 once, since the update makes no second forward pass. Text encoding and decoding cost no units; `decode_s`
    holds the wall time of decoding.
    """

    def __init__(self, model: VideoModel, checkpointing: bool = False) -> None:
        """Start at zero.

        Args:
            model: whose calls count.
            checkpointing: whether its backward pass computes the activations again.
        """
        self._model = model
        self._trained = RECOMPUTED if checkpointing else TRAINED
        self.units = 0
        self.decode_s = 0.0

    def __getattr__(self, name: str) -> Any:
        """What only this model family has."""
        if name == "_model":  # not there yet, as in a copy under way
            raise AttributeError(name)
        return getattr(self._model, name)

    def velocity(
        self,
        x: Float[Tensor, "b *latent"],
        sigma: Float[Tensor, " b"],
        condition: Condition,
        guidance: float = 1.0,
    ) -> Float[Tensor, "b *latent"]:
        """The model's velocity, counted."""
        velocity = self._model.velocity(x, sigma, condition, guidance)
        passes = len(x) * (1 if guidance == 1.0 else 2)
        self.units += passes * (self._trained if velocity.requires_grad else FORWARD)
        return velocity

    def decode(self, x0: Float[Tensor, "b *latent"], condition: Condition) -> Videos:
        """The model's videos, timed."""
        began = time.perf_counter()
        videos = self._model.decode(x0, condition)
        if x0.is_cuda:
            torch.cuda.synchronize(x0.device)
        self.decode_s += time.perf_counter() - began
        return videos


def _pass_on() -> None:
    """Give `Counted` the protocol's other members by name, so that it is a `VideoModel` to whoever asks the class."""
    members = {*VideoModel.__annotations__, *(name for name in vars(VideoModel) if not name.startswith("_"))}
    for name in sorted(members - set(vars(Counted))):
        setattr(Counted, name, property(attrgetter(f"_model.{name}")))


_pass_on()
