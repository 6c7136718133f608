"""The size of videos that a Wan folder makes, as asked for or as its card says; whether codec and patches allow it."""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from reelign import pretrained
from reelign.errors import BadCheckpoint, BadConfig, cut
from reelign.parts import Settings
from reelign.protocols import Geometry

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
            f"given: {cut(first['input'], 60)}."
        ) from error


def geometry_of(folder: Path, transformer: dict[str, Any], vae: dict[str, Any], size: SizeConfig) -> Geometry:
    """What a transformer and a codec of such settings make of a size.

    Raises:
        BadCheckpoint: the settings do not fit each other.
        BadConfig: they cannot make that size.
    """
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
