"""Wan2.1 text-to-video, through diffusers, from any local pipeline folder; also the packaged tiny generator."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import torch
from diffusers import WanPipeline, WanTransformer3DModel
from jaxtyping import Float
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from reelign import folders, half
from reelign.batches import Videos
from reelign.errors import BadCheckpoint, BadConfig, BadData
from reelign.models._pixels import load as load_codec
from reelign.models._rows import fill_tiles
from reelign.models._text import TextCache
from reelign.models._weights import LoraConfig, Reference, attach_lora
from reelign.parts import PartConfig, Settings
from reelign.playground import package
from reelign.protocols import Card, Geometry

log = logging.getLogger(__name__)

PLAYGROUND = "playground"


class SizeConfig(Settings):
    """Geometry of the videos to make; a packaged model brings its own."""

    frames: int = Field(default=81, ge=1)
    """1 + 4k."""
    height: int = Field(default=480, ge=8)
    width: int = Field(default=832, ge=8)
    fps: float = Field(default=16.0, gt=0)


class Config(PartConfig):
    """Which Wan pipeline, and what of it trains."""

    name: str = "wan"
    weights: str = PLAYGROUND
    """A local diffusers pipeline folder, or "playground" for the packaged tiny generator."""
    size: SizeConfig | None = None
    """The default is the folder's card.json, else Wan2.1's 81 x 480 x 832 at 16 fps."""
    text_length: int | None = Field(default=None, ge=1)
    """Tokens a prompt; the default is the folder's card.json, else Wan's 512."""
    lora: LoraConfig | None = None
    """Train an adapter; without it all weights train."""
    checkpointing: bool = False
    """Compute the blocks' activations again for the backward pass: a third slower, far less memory."""
    precision: Literal["auto", "float32", "bfloat16", "fast"] = "auto"
    """What the transformer computes in. Auto is bfloat16 on CUDA and float32 elsewhere; fast is bfloat16 also on CPUs
    that have instructions for it. Trained weights stay float32; text encoder and codec are bfloat16 on CUDA only."""


class Wan:
    """A Wan transformer with its text encoder and codec. Owns their weights; only an optimizer changes them."""

    def __init__(self, config: Config, device: torch.device) -> None:
        """Load a pipeline folder; see `build`."""
        self.config = config
        self.folder = folder = _folder_of(config)
        _check_folder(folder)
        card = _card(folder)
        self.device = device
        self._bfloat16 = {
            "auto": device.type == "cuda",
            "float32": False,
            "bfloat16": True,
            "fast": half.fast(device),
        }[config.precision]
        frozen_dtype = torch.bfloat16 if self._bfloat16 and device.type == "cuda" else torch.float32
        self.network: WanTransformer3DModel = folders.load(
            WanTransformer3DModel, folder / "transformer", torch_dtype=torch.float32
        )
        # eval mode for good: dropout would make a replay differ from its rollout.
        self.network.eval()
        for name, buffer in self.network.rope.named_buffers():
            setattr(self.network.rope, name, buffer.float())  # float64 angles would double the cost of attention on CPU
        cast(nn.Module, self.network).to(device)
        if config.lora is not None:
            attach_lora(self.network, config.lora)
        else:
            self.network.requires_grad_(True)
        if device.type == "cpu":
            fill_tiles(self.network)
        if config.checkpointing:
            self.network.enable_gradient_checkpointing()
        self.text = TextCache(folder, config.text_length or card.get("text_length", 512), device, frozen_dtype)
        self.codec = load_codec(folder, device, frozen_dtype)
        self.geometry = self._geometry(config.size or _card_size(card))
        self._reference = Reference(self.network)

    def _geometry(self, size: SizeConfig) -> Geometry:
        time, space = self.codec.time, self.codec.space
        if (size.frames - 1) % time or size.height % space or size.width % space:
            raise BadConfig(
                f"model.size: {size.frames} x {size.height} x {size.width} does not fit; frames must be 1 + {time}k, "
                f"height and width multiples of {space}."
            )
        latent = (self.codec.channels, (size.frames - 1) // time + 1, size.height // space, size.width // space)
        patch = tuple(dict(self.network.config)["patch_size"])
        if any(n % p for n, p in zip(latent[1:], patch, strict=True)):
            raise BadConfig(f"model.size: latents {latent[1:]} are not multiples of the patch {patch}.")
        return Geometry(size.frames, size.height, size.width, size.fps, latent)

    @property
    def reference_weights(self) -> Reference:
        """The frozen weights of every role, for checkpoints."""
        return self._reference

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "b n d"]:
        """Text features, cached by text."""
        return self.text(texts)

    def velocity(
        self,
        x: Float[Tensor, "b *latent"],
        sigma: Float[Tensor, " b"],
        condition: Float[Tensor, "b n d"],
        guidance: float = 1.0,
    ) -> Float[Tensor, "b *latent"]:
        """Velocity, float32; with guidance both branches run in one batched pass and both carry the gradient."""
        if guidance == 1.0:
            return self._forward(x, sigma, condition)
        empty = self.encode([""]).expand_as(condition)
        both = self._forward(torch.cat([x, x]), torch.cat([sigma, sigma]), torch.cat([empty, condition]))
        unconditional, conditional = both.chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    def _forward(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        with half.products(self.device.type) if self._bfloat16 else nullcontext():
            return self._reference.call(x, 1000 * sigma, condition, return_dict=False)[0].float()

    @torch.no_grad()
    def decode(self, x0: Float[Tensor, "b *latent"]) -> Videos:
        """Latents to videos."""
        return Videos(self.codec.decode(x0), self.geometry.fps)

    @torch.no_grad()
    def encode_video(self, videos: Videos) -> Float[Tensor, "b *latent"]:
        """Videos to latents.

        Raises:
            BadData: frames, height or width differ from the model's.
        """
        _, frames, _, height, width = videos.frames.shape
        own = self.geometry
        if (frames, height, width) != (own.frames, own.height, own.width):
            raise BadData(
                f"a clip has {frames} frames of {height} x {width}, but the model makes {own.frames} of "
                f"{own.height} x {own.width}; set dataset.fit to 'resize' or convert the clips."
            )
        return self.codec.encode(videos.frames.to(self.device))

    @contextmanager
    def reference(self, role: str = "reference") -> Iterator[None]:
        """Within this context `velocity` is that of a role's frozen weights."""
        with self._reference.on(role):
            yield

    def start_reference(self, role: str = "reference") -> None:
        """Make the present weights those of a role."""
        self._reference.start(role)

    def follow_reference(self, decay: float, role: str = "reference") -> None:
        """Move a role's weights towards the present ones."""
        self._reference.follow(role, decay)

    def export(self, folder: Path) -> None:
        """Write a stock pipeline folder; with LoRA the adapter is merged, and also in `lora/` for the base."""
        folder.mkdir(parents=True, exist_ok=True)
        for part in self.folder.iterdir():
            if part.name != "transformer":
                _copy(part, folder / part.name)
        if self.config.lora is None:
            self.network.save_pretrained(folder / "transformer")
            return
        from peft.utils import get_peft_model_state_dict

        layers = get_peft_model_state_dict(self.network, adapter_name="default")
        adapter = self.network.peft_config["default"].to_dict()
        WanPipeline.save_lora_weights(
            folder / "lora",
            transformer_lora_layers={k: v.detach().cpu().contiguous() for k, v in layers.items()},
            transformer_lora_adapter_metadata=adapter,
        )
        merged = {k: v.detach().cpu().contiguous() for k, v in _merged(self.network).items()}
        target = folder / "transformer"
        target.mkdir(exist_ok=True)
        self.network.save_config(target)
        save_file(merged, target / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def _merged(network: WanTransformer3DModel) -> dict[str, Tensor]:
    """Plain weights with the default adapter added in; the network itself is left as it is."""
    from peft.tuners.lora import LoraLayer

    layers: dict[str, Any] = {name: m for name, m in network.named_modules() if isinstance(m, LoraLayer)}
    result = {}
    for name, value in network.state_dict().items():
        if "lora_" in name:
            continue
        owner = name.rsplit(".base_layer.", 1)[0]
        if ".base_layer." in name and name.endswith("weight"):
            value = value + layers[owner].get_delta_weight("default")
        result[name.replace(".base_layer.", ".")] = value
    return result


def _copy(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        return
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def _check_folder(folder: Path) -> None:
    if not (folder / "model_index.json").is_file():
        raise BadCheckpoint(
            f"{str(folder)!r} is no pipeline folder (no model_index.json); "
            "give a local diffusers Wan folder or 'playground'."
        )
    index = folders.read_json(folder / "model_index.json")
    if (index.get("transformer_2") or [None])[0] is not None:
        raise BadCheckpoint(
            f"{str(folder)!r} is a Wan2.2 pipeline with two experts; the family 'wan' takes one, as Wan2.1 has."
        )
    kind = folders.read_json(folder / "transformer" / "config.json").get("_class_name")
    if kind != "WanTransformer3DModel":
        raise BadCheckpoint(
            f"{str(folder / 'transformer')!r} holds a {kind}, but the family 'wan' needs a WanTransformer3DModel."
        )


def _card(folder: Path) -> dict[str, Any]:
    path = folder / "card.json"
    return folders.read_json(path) if path.is_file() else {}


def _card_size(card: dict[str, Any]) -> SizeConfig:
    return SizeConfig(**{k: card[k] for k in ("frames", "height", "width", "fps") if k in card})


def check(config: Config) -> None:
    """Refuse, without loading anything, a folder that cannot be a Wan pipeline.

    Raises:
        BadCheckpoint: see `build`.
    """
    _check_folder(_folder_of(config))


def _folder_of(config: Config) -> Path:
    return package.FOLDER if config.weights == PLAYGROUND else Path(config.weights)


def build(config: Config, device: torch.device) -> Wan:
    """Load a Wan pipeline folder as a trainable model.

    Raises:
        BadCheckpoint: no pipeline folder, an incomplete one, pickled weights, or another architecture.
        BadConfig: a geometry that the codec or the patches cannot make, or LoRA targets that match nothing.
    """
    return Wan(config, device)


def describe(config: Config) -> Card:
    """What the folder says of itself, without loading weights."""
    card = _card(_folder_of(config))
    size = config.size or _card_size(card)
    return Card(
        Geometry(size.frames, size.height, size.width, size.fps, ()), config.text_length or card.get("text_length", 512)
    )
