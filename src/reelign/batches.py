"""Data that flows: frozen batches whose fields say their shapes.

Samples are prompt-major: b = prompt * group + member.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor

from reelign.core.transition import Transition


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts to sample from, `group` members each.

    `ids` name a prompt for its noise seed (position in its dataset); `slices` say which slices a prompt belongs to,
    for example {"color": "red", "camera": "pan"}.
    """

    texts: tuple[str, ...]
    ids: tuple[int, ...]
    group: int = 1
    slices: tuple[dict[str, str], ...] = ()

    @property
    def repeated(self) -> tuple[str, ...]:
        """Each text `group` times, prompt-major."""
        return tuple(text for text in self.texts for _ in range(self.group))


@dataclass(frozen=True, slots=True)
class Videos:
    """Decoded videos, RGB in [0, 1], float32."""

    frames: Float[Tensor, "b f 3 H W"]
    fps: float

    def __len__(self) -> int:
        """How many videos."""
        return len(self.frames)


@dataclass(frozen=True, slots=True)
class Clips:
    """Clips to imitate: clean latents and what they show. `weight` has mean 1."""

    x0: Float[Tensor, "b *latent"]
    texts: tuple[str, ...]
    weight: Float[Tensor, " b"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Preference pairs: latents of the chosen and the rejected clip of each prompt."""

    chosen: Float[Tensor, "b *latent"]
    rejected: Float[Tensor, "b *latent"]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trajectories:
    """What a rollout leaves behind: its clean latents, and the stochastic transitions that can be replayed.

    `x`, `x_next` [k b *latent] are stored in float32 and `log_prob` [k b] was evaluated on exactly these values, so a
    replay by the same weights gives a ratio of exactly 1. `mean` is the sampled policy's transition mean and `std` its
    standard deviation (needed by exact step KL and divergence masks). k is 0 for a deterministic rollout.
    """

    prompts: Prompts
    x0: Float[Tensor, "b *latent"]
    x: Float[Tensor, "k b *latent"]
    x_next: Float[Tensor, "k b *latent"]
    sigma: Float[Tensor, "k b"]
    sigma_next: Float[Tensor, "k b"]
    log_prob: Float[Tensor, "k b"]
    mean: Float[Tensor, "k b *latent"]
    std: Float[Tensor, "k b"]
    kind: str
    """Transition, strength and guidance are part of the record, so a replay cannot use others."""
    eta: float
    guidance: float
    table: Float[Tensor, " levels"]
    """The sampler's noise levels."""
    index: Int[Tensor, "k b"]
    """Which step of the table each recorded transition is."""
    live: tuple[tuple[Transition, ...], ...] = ()
    """The same transitions with their graphs, by step and micro-batch, where the rollout kept them for one update."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A rollout and what it earned."""

    trajectories: Trajectories
    rewards: dict[str, Float[Tensor, "p g"]]
    """By name. A reward called "base/extra" was derived from "base" and is balanced together with it."""
    weights: dict[str, float]
    """The user's weight of each reward."""
    ranges: dict[str, tuple[float, float]]
    """The declared scale of each reward."""
    rescore: Callable[[Videos], Mapping[str, Float[Tensor, " b"]]]
    """Scores other videos of the same prompts, in the same order."""
    videos: Videos | None = None
    """The decoded samples, for methods that look at them."""


@dataclass(frozen=True, slots=True)
class Credited:
    """Trajectories with their advantages.

    Samples that are not `informative` (of groups without spread, or passed over by a selection) are left out of the
    loss and of its denominator. `restraint` says how much each sample counts in penalties; it is 1 unless a method
    restrains some samples only.
    """

    trajectories: Trajectories
    advantage: Float[Tensor, "b *dense"]
    informative: Bool[Tensor, " b"]
    metrics: dict[str, float] = field(default_factory=dict)
    restraint: Float[Tensor, " b"] | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """One scalar to back-propagate: its part of the objective, and metrics that count for `share` of the batch.

    Metrics are means over the part, except those whose name starts with "max_", which are maxima. They stay tensors, so
    that reading them costs no synchronisation in the middle of an update.
    """

    value: Float[Tensor, ""]
    share: float
    metrics: dict[str, Tensor]
