"""What is held in memory and goes into a checkpoint: weights, moments, frozen weights, what a method remembers."""

from reelign import soundness
from reelign.errors import BadCheckpoint, RunStopped
from reelign.protocols import VideoModel
from reelign.runtime import checkpoint
from reelign.runtime.checkpoint import Checkpoint
from reelign.runtime.local import Local
from reelign.runtime.work import Groups
from reelign.weights import load_trainable, trainable


class Held:
    """Reads the model and the running stage's learner, and brings them back; owns neither."""

    def __init__(self, model: VideoModel, runtime: Local) -> None:
        """Look at a model and the runtime around it."""
        self.model, self._runtime = model, runtime
        self.fingerprint = checkpoint.fingerprint(trainable(model.network))

    def weights(self) -> Groups:
        """The policy alone: what a stage hands on."""
        return {"learner": {f"weights/{n}": p.detach() for n, p in trainable(self.model.network).items()}}

    def all(self) -> Groups:
        """All that the next step of a stage under way depends on."""
        work = self._runtime.work
        return work.state() if work else self.weights()

    def bring_back_weights(self, found: Checkpoint) -> None:
        """Make the policy that of a checkpoint.

        Raises:
            BadCheckpoint: it holds none.
        """
        tensors = found.tensors.get("learner", {})
        own = {key.removeprefix("weights/"): v for key, v in tensors.items() if key.startswith("weights/")}
        if not own:
            raise BadCheckpoint("the checkpoint holds no weights; restore it from a copy, or start a new run.")
        load_trainable(self.model.network, own)


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
