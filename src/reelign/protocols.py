"""The interfaces that parts implement. Tensors are float32 in and out; a model casts inside."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reelign.batches import Clips, Credited, Loss, Pairs, Prompts, Scored, Videos


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a model makes: frames of height x width pixels at `fps`, from latents [c f h w]."""

    frames: int
    height: int
    width: int
    fps: float
    latent: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """What a model folder says of itself, read from its JSON files alone."""

    geometry: Geometry
    text_length: int
    """Tokens of a prompt that the model sees; the rest is cut."""
    experts: tuple[str, ...] = ("",)
    """Networks that share the noise levels, in the order in which a sampler meets them."""
    boundary: float | None = None
    """Noise level below which the second expert takes over."""
    kinds: frozenset[str] = frozenset()
    """What a request may give beside its text, such as "first_frame"."""


@runtime_checkable
class Solver(Protocol):
    """What of a sampler says where its noise levels lie."""

    @property
    def steps(self) -> int:
        """So many."""
        ...

    @property
    def shift(self) -> float:
        """Time shift; more spends more steps at high noise."""
        ...


@runtime_checkable
class Adapter(Protocol):
    """What trains beside a frozen network. It may keep nothing of a network: one is attached to all experts."""

    form: Any
    """Its settings without what only the start of a run reads: how a run that is resumed builds it."""

    def attach(self, network: nn.Module) -> None:
        """Add the parameters that train, in float32; all that is there is frozen and may be in bfloat16."""
        ...

    def neutral(self, network: nn.Module) -> Mapping[str, Tensor]:
        """Values of some of its trainable parameters, by name, at which it adds nothing whatever the others are.

        Empty where there are none: a reference is then always a copy.
        """
        ...

    def off(self, network: nn.Module) -> AbstractContextManager[None]:
        """Within this context the network is the base, bit for bit."""
        ...

    def merged(self, network: nn.Module) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """How each weight of the base that it changes, by its name in the base, becomes one that does without it.

        Tensors are float32 on the host; a new one is given, of the same shape. Empty for what cannot be merged: an
        exported pipeline is then the base.
        """
        ...

    def export(self, network: nn.Module, folder: Path) -> None:
        """Write what it learnt into a folder of its own, in float32."""
        ...


@runtime_checkable
class ReferenceWeights(Protocol):
    """What a checkpoint keeps of a model's frozen weights."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Which there are."""
        ...

    @property
    def adapter_off(self) -> tuple[str, ...]:
        """Which of them are the network with its adapter switched off, so that no weights are kept."""
        ...

    def keep(self, roles: Collection[str]) -> None:
        """Drop all other roles."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The kept weights as "role/name"."""
        ...

    def load(self, tensors: Mapping[str, Tensor], adapter_off: Sequence[str]) -> None:
        """Restore what `state` and `adapter_off` gave."""
        ...


@runtime_checkable
class VideoModel(Protocol):
    """A flow model of videos and everything around it: text, pixels, adapters, export.

    One whose base may change between two starts of a run may have the property `identity`, a text that tells the base
    as it was loaded from another one.
    """

    geometry: Geometry
    experts: Mapping[str, nn.Module]
    """The networks that train, by name; a single one is called "".

    Their trainable parameters are exactly what an update changes.
    """
    device: torch.device

    @property
    def reference_weights(self) -> ReferenceWeights:
        """The frozen weights of every role, for checkpoints."""
        ...

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "b n d"]:
        """Text features, cached by text."""
        ...

    def levels(self, sampler: Solver, geometry: Geometry) -> Float[Tensor, " levels"]:
        """The noise levels that a sampler of videos of that geometry goes through: `[steps + 1]`, from 1 down to 0."""
        ...

    def velocity(
        self,
        x: Float[Tensor, "b *latent"],
        sigma: Float[Tensor, " b"],
        condition: Float[Tensor, "b n d"],
        guidance: float = 1.0,
    ) -> Float[Tensor, "b *latent"]:
        """Velocity, float32; with guidance w != 1: v(empty) + w (v(text) - v(empty)), both in one batched pass."""
        ...

    def decode(self, x0: Float[Tensor, "b *latent"]) -> Videos:
        """Latents to videos."""
        ...

    def encode_video(self, videos: Videos) -> Float[Tensor, "b *latent"]:
        """Videos to latents; refuses another geometry."""
        ...

    def reference(self, role: str = "reference") -> AbstractContextManager[None]:
        """Within this context `velocity` is that of frozen weights.

        Roles are "reference" (what a penalty pulls towards) and "sampled" (what rolls out, where it is not the policy).
        """
        ...

    def start_reference(self, role: str = "reference") -> None:
        """Make the present weights those of a role."""
        ...

    def follow_reference(self, decay: float, role: str = "reference") -> None:
        """Move a role's weights towards the present ones: ``decay * role + (1 - decay) * present``."""
        ...

    def export(self, folder: Path, shift: float | None = None) -> None:
        """Write a stock `diffusers` pipeline, and with an adapter also that, in a folder of its name.

        `shift` is the sampler's that the weights were trained or judged with.
        """
        ...


@runtime_checkable
class Reward(Protocol):
    """Scores to train on: `(videos, prompts) -> {name: [b]}`, higher is better, on a declared fixed range.

    One that reads what prompts say may have `check_prompts(prompts)`, which raises a UserError for what it cannot read,
    so that a dry run finds it; one for videos of one size may have `reads`, their (frames, height, width). So may a
    metric.
    """

    names: tuple[str, ...]
    """Of its scores."""
    range: tuple[float, float]
    version: str
    """Changes whenever the same video could get another score."""

    def __call__(self, videos: Videos, prompts: Sequence[str]) -> Mapping[str, Float[Tensor, " b"]]:
        """Score each video against its prompt."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Held-out measures, never trained on: `(videos, prompts) -> {name: [b]}`.

    `higher_is_better` and `description` have an entry for each name. Set measures (diversity) compare the videos that
    share a prompt and give each video its share. One may have a `version`, text that changes whenever the same video
    could get another number; without it a digest of the files of its module and its class stands for it.
    """

    higher_is_better: Mapping[str, bool]
    description: Mapping[str, str]

    def __call__(self, videos: Videos, prompts: Sequence[str]) -> Mapping[str, Float[Tensor, " b"]]:
        """Measure each video against its prompt; NaN where a measure does not apply."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """Where prompts, clips or pairs come from. Draws are a function of (n, seed): there is no hidden position."""

    gives: frozenset[str]
    """Of {"prompts", "clips", "pairs"}; asking for anything else is refused by name."""

    def fit(self, geometry: Geometry) -> None:
        """Refuse, from headers alone and quickly, clips that a model of that geometry cannot take.

        Raises:
            BadData: more of them than the data set may leave out.
        """
        ...

    def identity(self) -> Mapping[str, str | int]:
        """Counts, and a digest of the texts, names and sizes of all it would give; changes when the data does."""
        ...

    def prompts(self, n: int, group: int, seed: int) -> Prompts:
        """Draw `n` prompts for groups of `group`."""
        ...

    def all_prompts(self) -> Prompts:
        """Every prompt, in file order."""
        ...

    def clips(self, n: int, seed: int, model: VideoModel) -> Clips:
        """Draw `n` captioned clips as latents of the model."""
        ...

    def pairs(self, n: int, seed: int, model: VideoModel) -> Pairs:
        """Draw `n` preference pairs as latents of the model."""
        ...


@runtime_checkable
class Method(Protocol):
    """What makes one algorithm differ from another."""

    consumes: type
    """The batch it trains on: Clips, Pairs or Credited."""
    needs: frozenset[str]
    """What it uses beside the policy, of {"reference", "sampled", "videos"}: frozen weights of these roles (a method
    that needs "sampled" rolls out with them), and the decoded samples."""

    def losses(self, model: VideoModel, batch: Any, seed: int, micro_batch: int) -> Iterator[Loss]:
        """Yield losses to back-propagate one by one, freeing each graph; the sum of their values is the objective.

        `micro_batch` bounds the samples in one forward pass and must not change the sum. Yielding nothing means that
        the batch teaches nothing, and the weights stay as they are.
        """
        ...


@runtime_checkable
class OnlineMethod(Method, Protocol):
    """A method that decides what to sample, gives credit for it, and may remember something between iterations."""

    def check(self, demand: Any) -> None:
        """Refuse, before any compute, what a stage asks of it (an `engines.slots.Demand`).

        Raises:
            BadConfig: in one sentence.
        """
        ...

    def explore(self, steps: int, prompts: Prompts, seed: int, iteration: int) -> Any:
        """Which of a rollout's steps are stochastic: a `sampling.Exploration`."""
        ...

    def begin(self, texts: Sequence[str], score: Callable[[Sequence[str], Sequence[int]], Any]) -> None:
        """Get ready before the first rollout of a stage.

        Args:
            texts: every prompt that the stage may draw.
            score: scores the starting policy's own samples of texts, one a seed: name to `[b]`.

        Raises:
            BadConfig: something the method needs of a prompt is missing.
        """
        ...

    def credit(self, scored: Scored) -> Credited:
        """Rewards to a batch with advantages."""
        ...

    def after(self, model: VideoModel, metrics: Mapping[str, float]) -> dict[str, float]:
        """Look after references and coefficients once an iteration has been learnt; gives metrics of its own."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What it remembers, for checkpoints."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave."""
        ...
