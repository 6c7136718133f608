"""What a runtime does for a stage, a piece at a time."""

from functools import partial
from typing import Any

from reelign import rollouts, soundness
from reelign.batches import Trajectories
from reelign.core.transition import Transition
from reelign.runtime.learner import Learner, LearnerConfig
from reelign.weights import of_experts


class Trained(Learner):
    """Owns the optimizer of a whole model."""

    def __init__(self, model: Any, config: LearnerConfig) -> None:
        super().__init__(of_experts(model.experts), config)
        self.model = model

    def learn(self, method: Any, batch: Any, seed: int, where: str) -> dict[str, float]:
        losses = method.losses(self.model, batch, seed, self.config.micro_batch)
        return self.update(losses, where, batch, partial(soundness.broken_weight, self.model.experts))


def replay(model: Any, trajectories: Trajectories, k: int, cut: slice) -> Transition:
    """The policy's present transition at recorded step `k` of the samples in `cut`."""
    at = (getattr(trajectories, name)[k, cut] for name in ("x", "sigma", "sigma_next"))
    return rollouts.transit(model, trajectories, *at, trajectories.condition[cut])
