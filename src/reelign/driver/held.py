"""What is held in memory and goes into a checkpoint: weights, moments, frozen weights, what a method remembers."""

from torch import Tensor

from reelign import soundness
from reelign.errors import BadCheckpoint, RunStopped
from reelign.protocols import VideoModel
from reelign.records import Best
from reelign.runtime import checkpoint
from reelign.runtime.checkpoint import Checkpoint
from reelign.runtime.local import Local
from reelign.runtime.work import Groups
from reelign.weights import load_trainable, of_experts


class Held:
    """Reads the model and the running stage's learner, and brings them back; owns neither."""

    def __init__(self, model: VideoModel, runtime: Local) -> None:
        self.model, self._runtime = model, runtime
        self.fingerprint = checkpoint.fingerprint(of_experts(model.experts))
        self.best: Best | None = None
        """Which weights of the running stage are its best so far, where it hands those on."""
        self._best: dict[str, Tensor] = {}
        """They themselves, on the host."""

    def weights(self) -> Groups:
        """The policy alone: what a stage hands on."""
        return {"learner": {f"weights/{n}": p.detach() for n, p in of_experts(self.model.experts).items()}}

    def all(self) -> Groups:
        """All that the next step of a stage under way depends on."""
        work = self._runtime.work
        return {**work.state(), "best": self._best} if work else self.weights()

    def note_best(self, best: Best) -> None:
        """Keep a copy of the present weights as the best of the stage."""
        self.best = best
        self._best = {name: p.detach().cpu().clone() for name, p in of_experts(self.model.experts).items()}

    def take_best(self) -> None:
        """Make the best weights of the stage the model's, if any were kept."""
        if self.best:
            load_trainable(self.model.experts, self._best)
        self._best = {}

    def begin(self, best: Best | None = None, tensors: Groups | None = None) -> None:
        """Another stage begins, or goes on from tensors of a checkpoint with its best weights so far."""
        self.best, self._best = best, dict((tensors or {}).get("best", {}))

    def bring_back_weights(self, saved: Checkpoint) -> None:
        """Make the policy that of a checkpoint.

        Raises:
            BadCheckpoint: it holds none.
        """
        tensors = saved.tensors.get("learner", {})
        own = {key.removeprefix("weights/"): v for key, v in tensors.items() if key.startswith("weights/")}
        if not own:
            raise BadCheckpoint("the checkpoint holds no weights; restore it from a copy, or start a new run.")
        load_trainable(self.model.experts, own)


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
