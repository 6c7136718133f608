"""Wan2.1 text-to-video, through diffusers, from any local pipeline folder; also the packaged tiny generator."""

import copy
import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import torch
from diffusers import WanTransformer3DModel
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from reelign import bfloat16, parts, pretrained
from reelign.batches import Condition, Geometry, Request, Size, Videos
from reelign.core import schedule
from reelign.errors import BadConfig, BadData
from reelign.models import _export, _network, _pipeline, _pixels, _text
from reelign.models._size import SizeConfig
from reelign.outline import Outline
from reelign.parts import AnyAdapter, PartConfig
from reelign.playground import PIPELINE
from reelign.protocols import Card, SamplerConfig
from reelign.store import Memory, Store, fingerprint
from reelign.weights import Adapter, Reference

PLAYGROUND = "playground"


class Config(PartConfig):
    """Which Wan pipeline, and what of it trains."""

    name: str = "wan"
    weights: str = PLAYGROUND
    """A local diffusers pipeline folder (`~` is the home folder), or "playground" for the packaged tiny generator."""
    size: SizeConfig | None = None
    """The default is the folder's card.json, else Wan2.1's 81 x 480 x 832 at 16 fps."""
    text_length: int | None = Field(default=None, ge=1, le=4096)
    """Tokens a prompt; the default is the folder's card.json, else Wan's 512."""
    adapter: AnyAdapter | None = None
    """What trains, such as `lora`, beside weights that do not; without it they train, all of them."""
    checkpointing: bool = False
    """Compute the blocks' activations again for the backward pass: a third slower, far less memory."""
    precision: Literal["auto", "float32", "bfloat16", "fast"] = "auto"
    """What the transformer computes in. Auto is bfloat16 on CUDA and float32 elsewhere; fast is bfloat16 also on CPUs
    that have instructions for it. What trains is kept in float32; what does not train, beside an
    adapter, in what it is computed in, so in half the memory. Text encoder and codec are bfloat16 on CUDA only."""


class Wan:
    """A Wan transformer with its text encoder and codec. Owns their weights; only an optimizer changes them."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self._pipeline = pipeline = _read(config)
        self.folder, self.geometry = pipeline.folder, pipeline.card.geometry
        self._base = {path: pretrained.digest(path) for path in pipeline.files()}  # before they are read
        words, self.adapter = _words(pipeline), _adapter(config, pipeline)
        self._bfloat16, frozen_dtype = _precision(config, device)
        rounded = self.adapter is not None and self._bfloat16
        self.network: WanTransformer3DModel = (
            _network.load(pipeline.transformer)
            if rounded
            else pretrained.load(pipeline.transformer, torch_dtype=torch.float32)
        )
        # eval mode for good: dropout would make a replay differ from its rollout.
        self.network.eval()
        _network.float_angles(self.network)
        cast(nn.Module, self.network).to(device)
        self.network.requires_grad_(self.adapter is None)
        if self.adapter is not None:
            self.adapter.attach(self.network)
        if device.type == "cpu":
            _network.fill_tiles(self.network)
        if config.checkpointing:
            self.network.enable_gradient_checkpointing()
        length = pipeline.card.text_length
        reading = self._computed(("text_encoder", "tokenizer"), frozen_dtype, length)
        self.text = _text.TextFeatures(words, pipeline.text_encoder, length, device, frozen_dtype, reading)
        self.codec = _pixels.load(pipeline.vae, device, frozen_dtype)
        self.codec_identity = self._computed(("vae",), frozen_dtype)
        """Says all that the latents of a clip hang on beside its frames."""
        self.store: Store = Memory()
        """Where text features are kept, and latents of clips."""
        self.guests = (self.text.encoder, self.codec.vae)
        """What the network does not need while it computes."""
        self.experts = {"": self.network}
        self.reference = Reference(self.experts, self.adapter)
        self._sizes: dict[Size, Geometry] = {}

    @property
    def identity(self) -> str:
        """A digest of the base's files as they were when they were loaded, and of what the model is to make."""
        return hashlib.sha256(repr((self._files(), self._pipeline.card)).encode()).hexdigest()

    def _files(self, part: str = "") -> list[tuple[str, str]]:
        """Names and digests of the files of a part, or of all, as they were when they were loaded."""
        files = {path.relative_to(self.folder).as_posix(): digest for path, digest in self._base.items()}
        return sorted(pair for pair in files.items() if pair[0].startswith(f"{part}/" if part else ""))

    def _computed(self, parts: tuple[str, ...], *settings: object) -> str:
        """A digest of all that what parts compute hangs on beside their input."""
        libraries = version("diffusers"), version("transformers")
        return fingerprint(self.device, libraries, settings, *(self._files(part) for part in parts))

    def sized(self, size: Size) -> Geometry:
        """The geometry of videos of another size.

        Raises:
            BadData: the codec or the patches cannot make it.
        """
        if size not in self._sizes:
            frames, height, width = size
            asked = SizeConfig(frames=frames, height=height, width=width, fps=self.geometry.fps)
            try:
                card = describe(self.config.model_copy(update={"size": asked}))
            except BadConfig as error:
                raise BadData(f"a video of {frames} frames of {height} x {width} is asked for: {error}") from error
            self._sizes[size] = card.geometry
        return self._sizes[size]

    def encode(self, requests: Sequence[Request], geometry: Geometry | None = None) -> Condition:
        """Features of texts and of what guidance leads away from, the empty text by default; each text once."""
        texts = {"text": [r.text for r in requests], "negative": [r.negative or "" for r in requests]}
        return Condition(geometry or self.geometry, {name: self.text(own, self.store) for name, own in texts.items()})

    def velocity(
        self,
        x: Float[Tensor, "b *latent"],
        sigma: Float[Tensor, " b"],
        condition: Condition,
        guidance: float = 1.0,
    ) -> Float[Tensor, "b *latent"]:
        """Velocity, float32; with guidance both branches run in one batched pass and both carry the gradient."""
        text, padded = condition.values["text"], self.text.padded
        if guidance == 1.0:
            return self._forward(x, sigma, padded(text))
        texts = padded((*condition.values["negative"], *text))
        unconditional, conditional = self._forward(torch.cat([x, x]), torch.cat([sigma, sigma]), texts).chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    def _forward(self, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        with bfloat16.products(self.device.type) if self._bfloat16 else nullcontext():
            return self.reference.call(x, 1000 * sigma, text, return_dict=False)[0].float()

    def levels(self, sampler: SamplerConfig, geometry: Geometry) -> Float[Tensor, " levels"]:
        """A table of one shift for videos of all sizes."""
        return schedule.sigmas(sampler.steps, sampler.shift)

    @torch.no_grad()
    def decode(self, x0: Float[Tensor, "b *latent"], condition: Condition) -> Videos:
        """Latents to videos."""
        return Videos(self.codec.decode(x0), condition.geometry.fps)

    @torch.no_grad()
    def encode_video(self, videos: Videos, condition: Condition | None = None) -> Float[Tensor, "b *latent"]:
        """Videos to latents.

        Raises:
            BadData: frames, height or width differ from the model's.
        """
        _, frames, _, height, width = videos.frames.shape
        own = condition.geometry if condition else self.geometry
        if (frames, height, width) != (own.frames, own.height, own.width):
            raise BadData(
                f"a clip has {frames} frames of {height} x {width}, but the model makes {own.frames} of "
                f"{own.height} x {own.width}; set dataset.fit to 'resize' or convert the clips."
            )
        return self.codec.encode(videos.frames.to(self.device))

    def export(self, folder: Path, shift: float | None = None) -> None:
        """Write a stock pipeline folder; an adapter is merged, and also in a folder of its name for the base.

        card.json says the size, rate and text length that were trained, and the sampler's `shift`; without one given,
        the base folder's.

        Raises:
            RunStopped: a trained weight is not finite, or too large for the dtype of the base's files.
            BadCheckpoint: a file that is to be copied from the base is not what it was when the model was loaded.
        """
        _export.export(self._pipeline, self._base, self.network, self.adapter, folder, shift)


def check(config: Config) -> None:
    """Refuse all that JSON files and safetensors headers can tell to be wrong; no weight is read.

    Raises:
        BadCheckpoint, BadConfig: see `build`.
    """
    pipeline = _read(config)
    _words(pipeline)
    _adapter(config, pipeline)


def describe(config: Config) -> Card:
    """What the model makes and reads, from JSON files alone.

    Raises:
        BadCheckpoint, BadConfig: see `build`.
    """
    return _pipeline.describe(_folder_of(config), config.size, config.text_length)


def settled(config: Config) -> Config:
    """The same model for a run that is taken up again: its weights are saved, so of its adapter only the form stays.

    Raises:
        BadCheckpoint, BadConfig: see `build`.
    """
    adapter = _adapter(config, _read(config)) if config.adapter else None
    return config.model_copy(update={"adapter": adapter.form}) if adapter else config


def overlong(config: Config, texts: Sequence[str]) -> tuple[int, int]:
    """How many of the texts the model would cut, and how many tokens the longest has; only the tokenizer is read.

    Raises:
        BadCheckpoint, BadConfig: see `build`.
        BadData: a text is no valid Unicode.
    """
    pipeline = _read(config)
    return _text.overlong(_words(pipeline), pipeline.card.text_length, texts)


def outline(config: Config, device: torch.device) -> Outline:
    """The model before its weights, as it would lie on a device that need not be there.

    Raises:
        BadCheckpoint, BadConfig: see `build`.
    """
    pipeline, (products, dtype) = _read(config), _precision(config, device)
    adapter = _adapter(config, pipeline)
    network: Any = copy.deepcopy(pipeline.transformer.network)
    network.requires_grad_(adapter is None)
    _network.float_angles(network)
    if adapter is not None:
        if products:
            _network.rounded(network)
        fresh: Adapter = parts.build("adapter", adapter.form, network, _network.ORIGINAL)
        fresh.attach(network)
    if config.checkpointing:
        network.enable_gradient_checkpointing()
    width, length = pipeline.text_encoder.config.d_model, pipeline.card.text_length
    latent = pipeline.card.geometry.latent
    beside = {"text encoder": pipeline.text_encoder.network, "autoencoder": pipeline.vae.network}
    return Outline(
        network.eval(),
        lambda n: ((n, *latent), (n,), (n, length, width)),
        {name: dtype.itemsize * sum(p.numel() for p in part.parameters()) for name, part in beside.items() if part},
        dtype.itemsize * length * width,
        products,
    )


def build(config: Config, device: torch.device) -> Wan:
    """Load a Wan pipeline folder as a trainable model.

    Raises:
        BadCheckpoint: no pipeline folder, an incomplete or damaged one, one of another kind of model, weights that are
            pickled, packed or not finite, or anything that could run code; or an adapter to begin with that is of
            another model.
        BadConfig: a geometry that the codec or the patches cannot make, or an adapter that does not fit.
    """
    return Wan(config, device)


def _precision(config: Config, device: torch.device) -> tuple[bool, torch.dtype]:
    """Whether products are in bfloat16, and what text encoder and codec are kept in."""
    products = {
        "auto": device.type == "cuda",
        "float32": False,
        "bfloat16": True,
        "fast": bfloat16.fast(device),
    }[config.precision]
    return products, torch.bfloat16 if products and device.type == "cuda" else torch.float32


def _read(config: Config) -> _pipeline.Pipeline:
    return _pipeline.read(_folder_of(config), config.size, config.text_length)


def _words(pipeline: _pipeline.Pipeline) -> PreTrainedTokenizerBase:
    vocabulary = pipeline.text_encoder.config.vocab_size
    return _text.tokenizer(pipeline.folder / "tokenizer", pipeline.words, vocabulary)


def _adapter(config: Config, pipeline: _pipeline.Pipeline) -> Adapter | None:
    network = pipeline.transformer.network
    assert network is not None, "a diffusers part is always compared"
    return parts.build("adapter", config.adapter, network, _network.ORIGINAL) if config.adapter else None


def _folder_of(config: Config) -> Path:
    return PIPELINE if config.weights == PLAYGROUND else pretrained.locate(config.weights)
