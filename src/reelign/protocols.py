"""The interfaces that parts implement. Tensors are float32 in and out; a model casts inside."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from reelign.batches import Clips, Condition, Geometry, Loss, Pairs, Prompts, Request, Size, Videos
from reelign.settings import Settings
from reelign.weights import Reference


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
    takes: frozenset[str] = frozenset()
    """What a request may give beside its text, such as "first_frame"."""


class SamplerConfig(Settings):
    """How noise becomes a video."""

    steps: int = Field(default=16, ge=2, le=1000)
    """Steps of the solver."""
    shift: float = Field(default=5.0, ge=0.01, le=100)
    """Time shift of the noise levels; more spends more steps at high noise."""
    guidance: float = Field(default=1.0, ge=0, le=100)
    """Classifier-free guidance; 1 is none and costs half."""


@runtime_checkable
class VideoModel(Protocol):
    """A flow model of videos and everything around it: text, pixels, adapters, export.

    What flows is what is generated: what is given (a first frame) stays in the condition, and the family puts it in
    its place within `velocity`, `decode` and `encode_video`. So noise, log-probabilities and losses need no mask.

    One that begins from what requests give has `takes`, the kinds of it, such as {"first_frame"}: the clips that it
    trains on then give it themselves. One whose base may change between two starts of a run may have the property
    `identity`, a text that tells the base as it was loaded from another one. One that keeps what it encodes has a
    `store`, which a runtime replaces by its own; with `codec_identity`, a text that says all that a clip's latents
    hang on beside its frames, these are kept there too. Networks that may leave the device while `network` computes
    are its `guests` (`models/_guest.py`).
    """

    geometry: Geometry
    """What it makes where a request asks for no size."""
    experts: Mapping[str, nn.Module]
    """The networks that train, by name; a single one is called "".

    Their trainable parameters are exactly what an update changes.
    """
    device: torch.device
    reference: Reference
    """Frozen weights of every role; checkpoints keep them."""

    def sized(self, size: Size) -> Geometry:
        """The geometry of videos of another size.

        Raises:
            BadData: the model cannot make it.
        """
        ...

    def encode(self, requests: Sequence[Request], geometry: Geometry | None = None) -> Condition:
        """What a batch of requests asks for; `geometry` is the model's own where none is given."""
        ...

    def levels(self, sampler: SamplerConfig, geometry: Geometry) -> Float[Tensor, " levels"]:
        """The noise levels that a sampler of videos of that geometry goes through: `[steps + 1]`, from 1 down to 0."""
        ...

    def velocity(
        self,
        x: Float[Tensor, "b *latent"],
        sigma: Float[Tensor, " b"],
        condition: Condition,
        guidance: float = 1.0,
    ) -> Float[Tensor, "b *latent"]:
        """Velocity, float32; with guidance w != 1: v(negative) + w (v(text) - v(negative)), in one batched pass."""
        ...

    def decode(self, x0: Float[Tensor, "b *latent"], condition: Condition) -> Videos:
        """Latents to videos, what was given included."""
        ...

    def encode_video(self, videos: Videos, condition: Condition | None = None) -> Float[Tensor, "b *latent"]:
        """Videos to latents, without what the condition gives; refuses another geometry."""
        ...

    def export(self, folder: Path, shift: float | None = None) -> None:
        """Write a stock `diffusers` pipeline, and with an adapter also that, in a folder of its name.

        `shift` is the sampler's that the weights were trained or judged with.
        """
        ...


@runtime_checkable
class Reward(Protocol):
    """Scores to train on: `(videos, requests) -> {name: [b]}`, higher is better, on fixed scales.

    Its `Config` says `scores` (their scales by name) and a `version`, text that changes whenever the same video could
    get another score. That of one which reads what requests say or give may have `check_requests(requests)`, which
    raises a UserError for what it cannot judge by, so that a dry run finds it; that of one for videos of one size may
    have `reads`, their (frames, height, width). So may a metric's.
    """

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> Mapping[str, Float[Tensor, " b"]]:
        """Score each video against what it was asked to show, and to begin from."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Held-out measures, never trained on: `(videos, requests) -> {name: [b]}`.

    Its `Config` says `higher_is_better` and a `description` of each name. Set measures (diversity) compare the videos
    that share a prompt and give each video its share. It may say a `version`, text that changes whenever the same video
    could get another number; without it a digest of the files of its module and its `Config` stands for it.
    """

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> Mapping[str, Float[Tensor, " b"]]:
        """Measure each video against its request; NaN where a measure does not apply."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """Where prompts, clips or pairs come from. Draws are a function of (n, seed): there is no hidden position.

    Its `Config` says what it `gives`, a set of some of these three; asking for anything else is refused by name.
    """

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
    """What makes one algorithm differ from another.

    Its `Config` says what it `consumes`, the batch it trains on: Clips, Pairs or Credited; and which frozen weights it
    `needs` beside the policy, see `declared.needs`. What an online stage asks of one besides is in
    `engines.method.Online`.
    """

    def losses(self, model: VideoModel, batch: Any, seed: int, micro_batch: int) -> Iterator[Loss]:
        """Yield losses to back-propagate one by one, freeing each graph; the sum of their values is the objective.

        `micro_batch` bounds the samples in one forward pass and must not change the sum. Yielding nothing means that
        the batch teaches nothing, and the weights stay as they are.
        """
        ...
