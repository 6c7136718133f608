"""What stages and the driver ask of a runtime, whatever it runs on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from reelign.batches import Credited, Request, Scored, Videos
from reelign.panel import WeightedReward
from reelign.parts import PartConfig
from reelign.runtime.learner import LearnerConfig
from reelign.runtime.plan import Item, PassesConfig
from reelign.sampling import SamplerConfig

Groups = dict[str, dict[str, Tensor]]
"""Tensors of a checkpoint."""


@dataclass(frozen=True, slots=True)
class StageSpec:
    """What a stage needs of a runtime: configs, built where they run."""

    method: PartConfig | None = None
    learner: LearnerConfig | None = None
    """None: it trains nothing."""
    rewards: tuple[WeightedReward, ...] = ()
    passes: PassesConfig = field(default_factory=PassesConfig)


@runtime_checkable
class Samples(Protocol):
    """Whatever gives videos of the present weights."""

    def sample(
        self, requests: Sequence[Request], seeds: Sequence[int], sampler: SamplerConfig, at_once: int
    ) -> Iterator[Videos]:
        """A video of each request and seed, at most `at_once` at a time and of one size, in order."""
        ...


@runtime_checkable
class Work(Samples, Protocol):
    """A stage under way in a runtime. Owns the stage's method, rewards, optimizer and frozen weights."""

    method: Any
    """Built from the spec."""

    @property
    def updates(self) -> int:
        """Optimizer steps so far, those before an interruption included."""
        ...

    @property
    def broken(self) -> bool:
        """Whether an update left weights that are not finite."""
        ...

    def rollout(self, items: Sequence[Item], sampler: SamplerConfig, where: str, show: int = 0) -> Scored:
        """Sample all items of an iteration, decode, score, and let the method see.

        Nothing decoded is kept but the first samples of the first `show` prompts, in 8 bits.
        """
        ...

    def score(
        self, requests: Sequence[Request], seeds: Sequence[int], sampler: SamplerConfig, where: str
    ) -> dict[str, Float[Tensor, " b"]]:
        """Scores of the present policy's own deterministic samples, one for each request and seed."""
        ...

    def utility(self, videos: Videos, requests: Sequence[Request], where: str) -> Float[Tensor, " b"]:
        """What videos are worth: the mean of the stage's rewards by their weights."""
        ...

    def learn(self, dataset: Any, n: int, draw: int, seed: int, where: str) -> dict[str, float]:
        """One optimizer step on draw number `draw` of `n` clips or pairs, as the method consumes them."""
        ...

    def update(self, batch: Credited, seed: int, where: str) -> dict[str, float]:
        """One optimizer step on a rollout with its credit."""
        ...

    def after(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Let the method look after references and coefficients once an iteration has been learnt."""
        ...

    def state(self) -> Groups:
        """All that the next step depends on."""
        ...

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], updates: int, adapter_off: Sequence[str]) -> None:
        """Restore what `state` gave."""
        ...
