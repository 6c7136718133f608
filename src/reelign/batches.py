"""Data that flows: frozen batches whose fields say their shapes.

Samples are prompt-major: b = prompt * group + member.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from reelign.core.transition import Transition


@dataclass(frozen=True, slots=True)
class Geometry:
    """Frames of height x width pixels at `fps`, and the latents [c f h w] that they are made from."""

    frames: int
    height: int
    width: int
    fps: float
    latent: tuple[int, ...]


Size = tuple[int, int, int]
"""Frames, height and width of a video."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a video is asked to show."""

    text: str
    id: int = 0
    """Names the noise of its samples: the position in its dataset, or an id of its own."""
    negative: str | None = None
    """What guidance leads away from; None is the family's own default."""
    given: Mapping[str, Path] = field(default_factory=dict)
    """Pictures and clips that it begins from, by what they are to the video: "first_frame", "last_frame", "clip"."""
    slices: Mapping[str, str] = field(default_factory=dict)
    """Which slices it belongs to, for example {"color": "red", "camera": "pan"}."""
    size: Size | None = None
    """None is the model's own."""


def requests(texts: Iterable[str]) -> tuple[Request, ...]:
    """Plain texts as requests; their positions are their ids."""
    return tuple(Request(text, i) for i, text in enumerate(texts))


def texts(requests: Iterable[Request]) -> tuple[str, ...]:
    """What each request says."""
    return tuple(request.text for request in requests)


class Asked:
    """What has requests."""

    __slots__ = ()
    requests: tuple[Request, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """Of each."""
        return texts(self.requests)


@dataclass(frozen=True, slots=True)
class Prompts(Asked):
    """Requests to sample from, `group` members each; all of one size."""

    requests: tuple[Request, ...]
    group: int = 1

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, cut: slice) -> "Prompts":
        """Some of them, with all their members."""
        return Prompts(self.requests[cut], self.group)

    @property
    def ids(self) -> tuple[int, ...]:
        """Of each."""
        return tuple(request.id for request in self.requests)

    @property
    def repeated(self) -> tuple[Request, ...]:
        """Each one `group` times, prompt-major."""
        return tuple(request for request in self.requests for _ in range(self.group))


@dataclass(frozen=True, slots=True)
class Condition:
    """Requests as a network takes them; opaque to everyone but the family that has encoded them."""

    geometry: Geometry
    """One for the batch."""
    values: Mapping[str, tuple[Tensor, ...]]
    """By name, one a sample. Samples may share a tensor, so none is to be written to."""

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def __getitem__(self, cut: "slice | Int[Tensor, ' n']") -> "Condition":
        """That of some samples."""
        rows = range(len(self))[cut] if isinstance(cut, slice) else cut.tolist()
        return replace(self, values={name: tuple(own[i] for i in rows) for name, own in self.values.items()})

    def repeated(self, group: int) -> "Condition":
        """Each sample's `group` times, prompt-major."""
        return self[torch.arange(len(self)).repeat_interleave(group)]

    def of(self, name: str) -> Float[Tensor, "b *value"]:
        """Values of one shape as one tensor, a row a sample."""
        return torch.stack(self.values[name])


def joined(parts: Sequence[Condition]) -> Condition:
    """The conditions of several batches of one geometry as that of one."""
    values = {name: tuple(value for part in parts for value in part.values[name]) for name in parts[0].values}
    return Condition(parts[0].geometry, values)


@dataclass(frozen=True, slots=True)
class Videos:
    """Decoded videos, RGB in [0, 1], float32."""

    frames: Float[Tensor, "b f 3 H W"]
    fps: float

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, slots=True)
class Clips(Asked):
    """Clips to imitate: clean latents and what they show. `weight` has mean 1."""

    x0: Float[Tensor, "b *latent"]
    requests: tuple[Request, ...]
    weight: Float[Tensor, " b"]


@dataclass(frozen=True, slots=True)
class Pairs(Asked):
    """Preference pairs: latents of the chosen and the rejected clip of each prompt."""

    chosen: Float[Tensor, "b *latent"]
    rejected: Float[Tensor, "b *latent"]
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Trajectories:
    """What a rollout leaves behind: its clean latents, and the stochastic transitions that can be replayed.

    `x`, `x_next` [k b *latent] are stored in float32 and `log_prob` [k b] was evaluated on exactly these values, so a
    replay by the same weights gives a ratio of exactly 1. `mean` is the sampled policy's transition mean and `std` its
    standard deviation (needed by exact step KL and divergence masks). k is 0 for a deterministic rollout.
    """

    prompts: Prompts
    condition: Condition
    """Of each sample."""
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
    pieces: tuple[int, ...] = ()
    """Samples of each piece that was rolled out by itself, in order; none is all in one. A replay is cut alike."""
    merge: bool = False
    """Replay several steps in one forward pass where they fit into it. The batches are then not those of the rollout,
    so ratios start at 1 up to rounding where a network's samples depend on their batch in the last bits."""
    live: tuple[tuple[Transition, ...], ...] = ()
    """The same transitions with their graphs, by step and forward pass, where the rollout kept them for one update."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample of a rollout, kept for people to look at."""

    request: Request
    member: int
    frames: UInt8[Tensor, "f 3 H W"]
    fps: float
    rewards: dict[str, float]
    """By name, before weighting."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A rollout and what it earned."""

    trajectories: Trajectories
    rewards: dict[str, Float[Tensor, "p g"]]
    """By name. A reward called "base/extra" was derived from "base" and is balanced together with it."""
    weights: dict[str, float]
    """The user's weight of each reward."""
    seen: dict[str, Float[Tensor, "b *seen"]] = field(default_factory=dict)
    """What the method looked for in the decoded samples while they were there, by its own names."""
    shown: tuple[Shown, ...] = ()
    """The first members of the first prompts, as many as were asked for."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of "rollout", "decode" and "reward"."""
    watched: dict[str, Float[Tensor, "p g"]] = field(default_factory=dict)
    """Scores whose weight is 0, which are logged and do not train."""


@dataclass(frozen=True, slots=True)
class Credited:
    """Trajectories with their advantages.

    Samples that do not teach (of groups without spread, or not selected) are idle: left out of the loss and of its
    denominator. `restraint` says how much each sample counts in penalties; it is 1 unless a method
    restrains some samples only.
    """

    trajectories: Trajectories
    advantage: Float[Tensor, "b *dense"]
    teaches: Bool[Tensor, " b"]
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

    @classmethod
    def idle(cls) -> "Loss":
        """Of a part whose samples are all idle: every process goes through the same parts, backwards too."""
        return cls(torch.zeros((), requires_grad=True), 0.0, {})
