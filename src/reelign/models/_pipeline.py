"""A Wan pipeline folder as its JSON files and headers say it is; everything is refused here that they can tell."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5EncoderModel

from reelign import pretrained
from reelign.errors import BadCheckpoint, cut
from reelign.models._size import SizeConfig, card_of, geometry_of
from reelign.pretrained import Part
from reelign.pretrained import configs as part_configs
from reelign.protocols import Card

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
    geometry, length = geometry_of(folder, transformer, vae, size or card), text_length or card.text_length
    if not any(index.get(SECOND) or ()):
        return Card(geometry, length)
    return Card(geometry, length, ("high", "low"), _boundary(folder, index))


def _refuse_index(folder: Path) -> dict[str, Any]:
    """What model_index.json says, if that is a text-to-video pipeline."""
    path = folder / "model_index.json"
    if not path.exists():
        what = "is a single file" if folder.is_file() else "is no pipeline folder (no model_index.json)"
        raise BadCheckpoint(f"{cut(folder)!r} {what}; give a local diffusers Wan folder or 'playground'.")
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
        raise BadCheckpoint(f"{str(folder)!r} predicts {cut(kind)!r}; the family 'wan' is of flow models.")
    return index


def _refuse_parts(folder: Path, path: Path, there: dict[str, list[Any]]) -> None:
    """Refuse parts of other libraries, parts that text-to-video models do not have, and parts that are not there."""
    for key, (library, kind) in there.items():
        if library not in ("diffusers", "transformers"):
            raise BadCheckpoint(
                f"{str(path)!r} takes {cut(key)} from {cut(library)!r}; "
                "Reelign loads classes of diffusers and transformers only."
            )
        if key not in (*PARTS, SECOND):
            raise BadCheckpoint(
                f"{str(path)!r} has a part {cut(key)!r} ({cut(kind)}), which "
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
            f"{str(folder / 'model_index.json')!r} gives boundary_ratio as {cut(given, 60)}, but "
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
