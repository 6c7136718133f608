"""A Wan pipeline folder as its JSON files and headers say it is; everything is refused here that they can tell."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKLWan, WanTransformer3DModel
from pydantic import ConfigDict, Field, ValidationError
from transformers import UMT5EncoderModel

from reelign import pretrained
from reelign.errors import BadCheckpoint, BadConfig
from reelign.parts import Settings
from reelign.pretrained import Part
from reelign.pretrained import configs as part_configs
from reelign.protocols import Card, Geometry

PARTS = {
    "transformer": WanTransformer3DModel,
    "vae": AutoencoderKLWan,
    "text_encoder": UMT5EncoderModel,
    "tokenizer": None,
    "scheduler": None,
}
"""What a pipeline must name, and the class of those with weights."""
SECOND = "transformer_2"
"""What a pipeline may name beside it: the network for low noise, where there are two."""
LONGEST = 2**16
"""Positions along an axis that a transformer's tables may have; the tables are no weights, so no file bounds them."""


class SizeConfig(Settings):
    """Geometry of the videos to make; a packaged model brings its own."""

    frames: int = Field(default=81, ge=1, le=100_000)
    """1 + 4k."""
    height: int = Field(default=480, ge=8, le=16_384)
    """Pixels, a multiple of what the codec makes one latent of."""
    width: int = Field(default=832, ge=8, le=16_384)
    """Likewise."""
    fps: float = Field(default=16.0, gt=0, le=1000)
    """Frames a second."""


class CardFile(SizeConfig):
    """A folder's card.json: what it was trained to make. Other keys are notes for people."""

    model_config = ConfigDict(extra="ignore")

    text_length: int = Field(default=512, ge=1, le=4096)
    shift: float | None = Field(default=None, gt=0)
    """Time shift of the sampler's noise levels."""


@dataclass(frozen=True)
class Pipeline:
    """A folder whose parts fit each other and their classes."""

    folder: Path
    card: Card
    shift: float | None
    """From card.json."""
    transformer: Part
    text_encoder: Part
    vae: Part
    words: str
    """Class of the tokenizer."""

    def files(self) -> Iterator[Path]:
        """Every file of the pipeline that is there now; nothing else of the folder."""
        yield self.folder / "model_index.json"
        for part in (self.transformer, self.text_encoder, self.vae):
            yield from pretrained.files_of(part)
        for name in ("tokenizer", "scheduler"):
            yield from pretrained.files_of(self.folder / name)

    def part_of(self, path: Path) -> Part | None:
        """The part with weights that a file belongs to."""
        parts = (self.transformer, self.text_encoder, self.vae)
        return next((part for part in parts if part.folder == path.parent), None)


def read(folder: Path, size: SizeConfig | None, text_length: int | None) -> Pipeline:
    """Compare a folder's parts with their classes and each other; no weight is read.

    Raises:
        BadCheckpoint: no pipeline folder, an incomplete or damaged one, one of another kind of model, or one with
            anything in it that could run code.
        BadConfig: a geometry that the codec or the patches cannot make.
    """
    card = describe(folder, size, text_length)
    if len(card.experts) > 1:
        raise BadCheckpoint(
            f"{str(folder)!r} is a Wan2.2 pipeline with two experts; the family 'wan' takes one, as Wan2.1 has."
        )
    transformer = pretrained.diffusers(WanTransformer3DModel, folder / "transformer")
    text = pretrained.transformers(UMT5EncoderModel, folder / "text_encoder")
    vae = pretrained.diffusers(AutoencoderKLWan, folder / "vae")
    _refuse_numbers(folder, transformer, text)
    wide, taken = text.config.d_model, transformer.config["text_dim"]
    if wide != taken:
        raise BadCheckpoint(
            f"{str(folder)!r} has a text encoder {wide} wide, but a transformer that takes {taken}; "
            "its parts are of different models."
        )
    words = str(pretrained.read_json(folder / "model_index.json")["tokenizer"][1])
    pipeline = Pipeline(folder, card, card_of(folder).shift, transformer, text, vae, words)
    for path in pipeline.files():
        pretrained.size_of(path)
    return pipeline


def describe(folder: Path, size: SizeConfig | None, text_length: int | None) -> Card:
    """What a folder makes and reads, and with how many networks, from JSON files alone.

    Raises:
        BadCheckpoint, BadConfig: see `read`.
    """
    index = _refuse_index(folder)
    transformer = part_configs.diffusers(WanTransformer3DModel, folder / "transformer" / "config.json")
    vae = part_configs.diffusers(AutoencoderKLWan, folder / "vae" / "config.json")
    _refuse_channels(folder, transformer, vae)
    card = card_of(folder)
    geometry, length = _geometry(folder, transformer, vae, size or card), text_length or card.text_length
    if not any(index.get(SECOND) or ()):
        return Card(geometry, length)
    return Card(geometry, length, ("high", "low"), _boundary(folder, index))


def card_of(folder: Path) -> CardFile:
    """What card.json says, and Wan2.1's own size and text length where it says nothing.

    Raises:
        BadCheckpoint: it is no JSON object, or holds a wrong value.
    """
    path = folder / "card.json"
    if not path.exists():
        return CardFile()
    try:
        return CardFile.model_validate(pretrained.read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise BadCheckpoint(
            f"{str(path)!r}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}; "
            f"given: {pretrained.shortened(first['input'], 60)}."
        ) from error


def _refuse_index(folder: Path) -> dict[str, Any]:
    """What model_index.json says, if that is a text-to-video pipeline."""
    path = folder / "model_index.json"
    if not path.exists():
        what = "is a single file" if folder.is_file() else "is no pipeline folder (no model_index.json)"
        raise BadCheckpoint(
            f"{pretrained.shortened(folder)!r} {what}; give a local diffusers Wan folder or 'playground'."
        )
    index = pretrained.read_json(path)
    named = {key: value for key, value in index.items() if isinstance(value, list)}
    odd = [key for key, value in named.items() if len(value) != 2 or not all(isinstance(v, str | None) for v in value)]
    odd += [key for key in (*PARTS, SECOND) if not isinstance(index.get(key, []), list | None)]
    if odd:
        raise BadCheckpoint(f"{str(path)!r}: {odd[0]} must be the library and the class of a part, as two names.")
    there = {key: value for key, value in named.items() if any(value)}
    _refuse_parts(folder, path, there)
    kind = pretrained.read_json(folder / "scheduler" / "scheduler_config.json").get("prediction_type")
    if kind not in (None, "flow_prediction"):
        raise BadCheckpoint(
            f"{str(folder)!r} predicts {pretrained.shortened(kind)!r}; the family 'wan' is of flow models."
        )
    return index


def _refuse_parts(folder: Path, path: Path, there: dict[str, list[Any]]) -> None:
    """Refuse parts of other libraries, parts that text-to-video models do not have, and parts that are not there."""
    for key, (library, kind) in there.items():
        if library not in ("diffusers", "transformers"):
            raise BadCheckpoint(
                f"{str(path)!r} takes {pretrained.shortened(key)} from {pretrained.shortened(library)!r}; "
                "Reelign loads classes of diffusers and transformers only."
            )
        if key not in (*PARTS, SECOND):
            raise BadCheckpoint(
                f"{str(path)!r} has a part {pretrained.shortened(key)!r} ({pretrained.shortened(kind)}), which "
                "text-to-video models do not have; give a text-to-video Wan folder."
            )
    for key in PARTS:
        if key not in there:
            raise BadCheckpoint(f"{str(path)!r} names no {key}; a Wan pipeline has {', '.join(PARTS)}.")
        if not (folder / key).is_dir():
            raise BadCheckpoint(
                f"{str(folder)!r} has no {key}/, which its model_index.json names; its download may be incomplete."
            )


def _boundary(folder: Path, index: dict[str, Any]) -> float:
    """Noise level below which the second network takes over."""
    given = index.get("boundary_ratio")
    if not isinstance(given, float) or not 0 < given < 1:
        raise BadCheckpoint(
            f"{str(folder / 'model_index.json')!r} gives boundary_ratio as {pretrained.shortened(given, 60)}, but "
            "between two networks it is a noise level above 0 and below 1."
        )
    return given


def _refuse_channels(folder: Path, transformer: dict[str, Any], vae: dict[str, Any]) -> None:
    taken, made, latent = transformer["in_channels"], transformer["out_channels"], vae["z_dim"]
    if (taken, made) == (latent, latent) and transformer["image_dim"] is None:
        return
    kind = "an image-to-video" if transformer["image_dim"] is not None or taken == 36 else "a control or editing"
    other = f"; it looks like {kind} model" if taken != latent or transformer["image_dim"] is not None else ""
    raise BadCheckpoint(
        f"{str(folder / 'transformer')!r} takes {taken} channels and makes {made}, but a text-to-video model "
        f"takes and makes the {latent} of its autoencoder{other}."
    )


def _refuse_numbers(folder: Path, transformer: Part, text: Part) -> None:
    """Refuse numbers that networks can be laid out with, but not run."""
    near, far = text.config.relative_attention_num_buckets // 4, text.config.relative_attention_max_distance
    for part, key, fine in (
        (transformer, "eps", 0 < transformer.config["eps"] < 1),
        (text, "layer_norm_epsilon", 0 < text.config.layer_norm_epsilon < 1),
        (text, "relative_attention_max_distance", far > near),
    ):
        if not fine:
            raise BadCheckpoint(
                f"{str(part.folder / 'config.json')!r} gives {key} a number that cannot be; it is damaged."
            )


def _geometry(folder: Path, transformer: dict[str, Any], vae: dict[str, Any], size: SizeConfig) -> Geometry:
    time, space, channels = _scales(folder / "vae" / "config.json", vae)
    patch, longest = tuple(transformer["patch_size"]), transformer["rope_max_seq_len"]
    if len(patch) != 3 or min(patch) < 1 or not 1 <= longest <= LONGEST:
        raise BadCheckpoint(
            f"{str(folder / 'transformer' / 'config.json')!r}: patch_size must be three numbers of at least 1, and "
            f"rope_max_seq_len at most {LONGEST}."
        )
    # A latent element is one frame and `time` more after it, or a square of pixels; patches hold whole elements.
    _refuse_between("frames", size.frames, 1 + time * (patch[0] - 1), time * patch[0])
    _refuse_between("height", size.height, space * patch[1], space * patch[1])
    _refuse_between("width", size.width, space * patch[2], space * patch[2])
    latent = (channels, (size.frames - 1) // time + 1, size.height // space, size.width // space)
    if any(n // p > longest for n, p in zip(latent[1:], patch, strict=True)):
        raise BadConfig(
            f"model.size: {size.frames} x {size.height} x {size.width} has more than {longest} patches along an axis; "
            "the model knows no more positions."
        )
    return Geometry(size.frames, size.height, size.width, size.fps, latent)


def _refuse_between(axis: str, given: int, first: int, step: int) -> None:
    """Refuse a length that is not one of `first`, `first + step`, ..."""
    below = first + (given - first) // step * step
    if below == given:
        return
    near = " or ".join(str(length) for length in (below, below + step) if length >= first)
    rule = f"a multiple of {step}" if first == step else f"{first} + {step}k"
    raise BadConfig(f"model.size.{axis}: {given} does not fit; it must be {rule}, such as {near}.")


def _scales(path: Path, vae: dict[str, Any]) -> tuple[int, int, int]:
    """Frames and pixels to one latent element, and channels; statistics and scales must fit the layers."""
    channels, halved = vae["z_dim"], vae["temperal_downsample"]
    scales = (vae["scale_factor_temporal"], vae["scale_factor_spatial"])
    patch = 1 if vae["patch_size"] is None else vae["patch_size"]
    if min(channels, patch) < 1 or len(halved) >= 8:
        raise BadCheckpoint(f"{str(path)!r}: z_dim, patch_size or temperal_downsample is wrong; it is damaged.")
    made = (2 ** sum(map(bool, halved)), 2 ** len(halved) * patch)
    if scales != made:
        raise BadCheckpoint(
            f"{str(path)!r} says that a latent element is {scales[0]} frames of {scales[1]} pixels, but its "
            f"layers make it {made[0]} and {made[1]}."
        )
    mean, std = vae["latents_mean"], vae["latents_std"]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise BadCheckpoint(
            f"{str(path)!r}: latents_mean and latents_std must be {channels} numbers, the latter above 0."
        )
    return *made, channels
