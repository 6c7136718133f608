"""What is held in memory and goes into a checkpoint: weights, moments, frozen weights, what a method remembers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reelign import soundness
from reelign.driver.state import State
from reelign.errors import BadCheckpoint, RunStopped
from reelign.protocols import VideoModel
from reelign.runtime import checkpoint
from reelign.runtime.checkpoint import Checkpoint
from reelign.runtime.local import Local
from reelign.weights import load_trainable, of_experts

Groups = dict[str, dict[str, Tensor]]
"""Tensors of a checkpoint."""


class Held:
    """Reads the model and the running stage's learner, and brings them back; owns neither."""

    def __init__(self, model: VideoModel, runtime: Local) -> None:
        """Look at a model and the runtime around it."""
        self.model, self._runtime = model, runtime
        self.fingerprint = checkpoint.fingerprint(of_experts(model.experts))

    def weights(self) -> Groups:
        """The policy alone: what a stage hands on."""
        return {"learner": {f"weights/{n}": p.detach() for n, p in of_experts(self.model.experts).items()}}

    def all(self) -> Groups:
        """All that the next step of a stage under way depends on."""
        learner, memory = self._runtime.learner, self._runtime.memory
        return {
            **({"learner": learner.state()} if learner else self.weights()),
            "reference": self.model.reference_weights.state(),
            "method": memory.state() if memory else {},
        }

    def bring_back_weights(self, found: Checkpoint) -> None:
        """Make the policy that of a checkpoint.

        Raises:
            BadCheckpoint: it holds none.
        """
        tensors = found.tensors.get("learner", {})
        own = {key.removeprefix("weights/"): v for key, v in tensors.items() if key.startswith("weights/")}
        if not own:
            raise BadCheckpoint("the checkpoint holds no weights; restore it from a copy, or start a new run.")
        load_trainable(self.model.experts, own)

    def bring_back(self, tensors: Mapping[str, Mapping[str, Tensor]], state: State) -> None:
        """Bring the learner, the frozen weights and the memory of a stage under way back."""
        learner, memory, frozen = self._runtime.learner, self._runtime.memory, self.model.reference_weights
        if learner is not None:
            own = {key: value.to(self.model.device) for key, value in tensors["learner"].items()}
            learner.load(own, state.updates)
        if frozen.roles:
            frozen.load(tensors.get("reference", {}), state.adapter_off)
        if memory:
            memory.load(tensors.get("method", {}))

    def mark(self) -> "Mark":
        """Something that changes if anything does that `all` gives."""
        learner, memory, frozen = self._runtime.learner, self._runtime.memory, self.model.reference_weights
        done = (learner.updates, getattr(learner, "broken", False)) if learner else (0, False)
        versions = tuple(value._version for value in frozen.state().values())
        return Mark((done, frozen.adapter_off, versions), memory.state() if memory else {})


class Mark:
    """A moment of what is held, to compare with another one; keeps copies of the method's few numbers only."""

    def __init__(self, counted: Any, remembered: Mapping[str, Tensor]) -> None:
        """Copy what may be changed in place."""
        self._counted, self._remembered = counted, {key: value.clone() for key, value in remembered.items()}

    def __eq__(self, other: object) -> bool:
        """Whether nothing has changed in between."""
        return (
            isinstance(other, Mark)
            and self._counted == other._counted
            and self._remembered.keys() == other._remembered.keys()
            and all(torch.equal(value, other._remembered[key]) for key, value in self._remembered.items())
        )


def refuse_broken(tensors: Groups) -> None:
    """Neither save nor export weights that are not finite.

    Raises:
        RunStopped: which.
    """
    for name, value in tensors["learner"].items():
        if name.startswith(("weights/", "average/")) and not soundness.finite(value):
            raise RunStopped(
                f"the weight {name.partition('/')[2]!r} is not finite; it was not saved, and the checkpoint before is "
                "whole; look at the learning rate and at what was trained on."
            )
