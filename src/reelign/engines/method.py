"""What all online methods share, whatever their loss: what a stage asks of them, done by slots."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from reelign.batches import Credited, Loss, Prompts, Request, Scored, Videos
from reelign.engines import credit
from reelign.engines.config import OnlineConfig
from reelign.engines.slots import Glance, Losses, Notes, Opened, Score, Slots
from reelign.opened import Datasets
from reelign.protocols import VideoModel
from reelign.rollouts import Exploration
from reelign.weights import Reference


class Online:
    """An online method: slots, and the loss that reads them. Owns what its slots remember."""

    def __init__(self, slots: Slots, losses: Losses) -> None:
        """Keep the slots, and the losses of the engine that reads them."""
        self.slots = slots
        self.opened: Opened = Datasets()
        """Opens what further terms draw from; the stage sets it to the run's."""
        self.notes = Notes()
        self._losses = losses

    def explore(self, steps: int, prompts: Prompts, seed: int, iteration: int) -> Exploration:
        """Which of a rollout's steps are stochastic."""
        return self.slots.select.draw(steps, prompts, seed, iteration)

    def begin(self, requests: Sequence[Request], score: Score) -> None:
        """Get ready before the first rollout of a stage.

        Args:
            requests: all that the stage may draw.
            score: scores the starting policy's own samples, one a request and seed: name to `[b]`.

        Raises:
            BadConfig: something that a slot needs of a prompt is missing.
        """
        for begin in self.slots.begin:
            begin(requests, score, self.notes)

    def see(
        self, videos: Videos, prompts: Prompts, x0: Tensor, score: Callable[[Videos], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What its slots take from some decoded samples before they go, `[b ...]` by their own names.

        Args:
            videos: of whole groups.
            prompts: which they are.
            x0: their latents.
            score: scores other videos of the same requests, name to `[b]`.
        """
        glance = Glance(videos, prompts, x0, score)
        return {name: value for see in self.slots.sees for name, value in see(glance).items()}

    def credit(self, scored: Scored) -> Credited:
        """Rewards to a batch with advantages."""
        return credit.credit(scored, self.slots, self.notes)

    def losses(self, model: VideoModel, batch: Credited, seed: int, micro_batch: int) -> Iterator[Loss]:
        """Those of the rollout, then those of further terms."""
        yield from self._losses(self.slots, self.notes.memory, model, batch, seed, micro_batch)
        if bool(batch.teaches.any()):
            for term in self.slots.terms:
                yield from term(model, seed, micro_batch, self.opened)

    def after(self, reference: Reference, metrics: Mapping[str, float]) -> dict[str, float]:
        """Look after references and coefficients once an iteration has been learnt; gives metrics of its own."""
        self.notes.metrics = {}
        for after in self.slots.after:
            after(reference, metrics, self.notes)
        return dict(self.notes.metrics)

    def state(self) -> dict[str, Tensor]:
        """What the slots remember."""
        return dict(self.notes.memory)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave."""
        self.notes.memory = dict(tensors)


def build(config: OnlineConfig) -> Online:
    """An online method from its settings.

    Raises:
        BadConfig: see `OnlineConfig.filled`.
    """
    return Online(config.filled(), config.losses())
