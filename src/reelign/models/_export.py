"""Writing a trained Wan model as a stock pipeline folder, in the layout and the dtypes of the folder it came from."""

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import WanPipeline, WanTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor

from reelign import pretrained
from reelign.errors import BadCheckpoint, RunStopped
from reelign.files import usual_mode
from reelign.models._adapter import ADAPTER
from reelign.models._pipeline import Pipeline
from reelign.pretrained import Part
from reelign.soundness import finite

log = logging.getLogger(__name__)

DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def export(
    pipeline: Pipeline,
    base: Mapping[Path, str],
    network: WanTransformer3DModel,
    folder: Path,
    shift: float | None,
) -> None:
    """Write the parts that model_index.json names, with the trained transformer, and card.json; nothing else.

    With an adapter the transformer has it merged in, and `lora/` holds it in float32 for the base.

    Args:
        pipeline: what was loaded.
        base: digests of its files as they were then.
        network: the transformer, trained.
        folder: to write to.
        shift: of the sampler.

    Raises:
        RunStopped: a trained weight is not finite, or too large for the dtype that its file has.
        BadCheckpoint: a file that is to be copied is not what it was when the model was loaded.
    """
    trained = {*pretrained.files_of(pipeline.transformer)} - {pipeline.transformer.folder / "config.json"}
    copied = {path: digest for path, digest in base.items() if path not in trained}
    _refuse_changed(copied)
    for source in copied:
        _carry(pipeline, source, folder)
    _card(pipeline, folder, shift)
    _transformer(pipeline.transformer, network, folder / "transformer")
    if getattr(network, "peft_config", None):
        _adapter(network, folder / "lora")


def _refuse_changed(known: Mapping[Path, str]) -> None:
    """Refuse to copy what is no longer what the run was trained with, before anything is written."""
    for path, digest in known.items():
        try:
            problem = "" if pretrained.digest(path) == digest else "has changed"
        except BadCheckpoint:
            problem = "is gone" if not os.path.exists(path) else "cannot be read any more"
        if problem:
            raise BadCheckpoint(
                f"{str(path)!r} {problem} since the model was loaded, so nothing is exported; bring it back and export "
                "again, as --resume does."
            )


def _carry(pipeline: Pipeline, source: Path, folder: Path) -> None:
    """Copy a file; the only variant of some weights becomes the plain one, which stock pipelines look for."""
    target = folder / source.relative_to(pipeline.folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = pipeline.part_of(source)
    if part and part.weights.variant:
        target = target.with_name(part.weights.plain(target.name))
        if source.name == part.weights.index:
            _index(part, target)
            return
    pretrained.copy(source, target)


def _index(part: Part, target: Path) -> None:
    """Write which shard holds what, under the shards' plain names."""
    mapped = {name: part.weights.plain(stored.file) for name, stored in part.weights.tensors.items()}
    size = sum(DTYPES[s.dtype].itemsize * torch.Size(s.shape).numel() for s in part.weights.tensors.values())
    content = {"metadata": {"total_size": size}, "weight_map": mapped}
    target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _card(pipeline: Pipeline, folder: Path, shift: float | None) -> None:
    made, shift = pipeline.card.geometry, shift or pipeline.shift
    card = {"frames": made.frames, "height": made.height, "width": made.width, "fps": made.fps}
    card |= {"text_length": pipeline.card.text_length} | ({"shift": shift} if shift else {})
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _transformer(part: Part, network: WanTransformer3DModel, target: Path) -> None:
    """The trained weights in the source's shards, each tensor in the dtype it had there."""
    target.mkdir(parents=True, exist_ok=True)
    trained, stored = _trained(network), part.weights.tensors
    for file in part.weights.files:
        own = {n: _cast(n, trained[n](), DTYPES[s.dtype]) for n, s in stored.items() if s.file == file and n in trained}
        with usual_mode(path := target / part.weights.plain(file)):
            save_file(own, path, metadata={"format": "pt"})
    if part.weights.index:
        _index(part, target / part.weights.plain(part.weights.index))
    dtypes = sorted({str(DTYPES[s.dtype]).removeprefix("torch.") for s in stored.values()})
    log.info("the exported transformer is in %s, as the weights it came from", " and ".join(dtypes))


def _trained(network: WanTransformer3DModel) -> Mapping[str, Callable[[], Tensor]]:
    """How to get each plain weight, with the default adapter added in; the network itself is left as it is."""
    from peft.tuners.lora import LoraLayer

    layers: dict[str, Any] = {name: m for name, m in network.named_modules() if isinstance(m, LoraLayer)}

    def of(name: str, value: Tensor) -> Callable[[], Tensor]:
        owner, wrapped, kind = name.partition(".base_layer.")
        merged = wrapped and kind == "weight"
        return lambda: value + layers[owner].get_delta_weight("default") if merged else value

    own = {name: value for name, value in network.state_dict().items() if "lora_" not in name}
    return {name.replace(".base_layer.", "."): of(name, value) for name, value in own.items()}


def _cast(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach().cpu()
    if not finite(value):
        raise RunStopped(f"the trained weight {name!r} is not finite, so nothing is exported; the checkpoint stays.")
    cast = value.to(dtype).contiguous()
    if not finite(cast):
        raise RunStopped(
            f"the trained weight {name!r} goes up to {float(value.abs().max()):.3g}, which the base's {dtype} cannot "
            "hold, so nothing is exported; the checkpoint stays."
        )
    return cast


def _adapter(network: WanTransformer3DModel, target: Path) -> None:
    from peft.utils import get_peft_model_state_dict

    layers = get_peft_model_state_dict(network, adapter_name="default")
    # Sets have an order of their own in each process.
    notes = {k: sorted(v) if isinstance(v, set) else v for k, v in network.peft_config["default"].to_dict().items()}
    target.mkdir(exist_ok=True)
    with usual_mode(file := target / ADAPTER):
        WanPipeline.save_lora_weights(
            target,
            transformer_lora_layers={k: v.detach().cpu().contiguous() for k, v in layers.items()},
            transformer_lora_adapter_metadata=notes,
            weight_name=ADAPTER,
        )
        _order_notes(file)


def _order_notes(file: Path) -> None:
    """Sort the notes in a safetensors header; its writer leaves them in random order, and equal exports are equal."""
    with file.open("r+b") as content:
        length = int.from_bytes(content.read(8), "little")
        header = json.loads(content.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= length, "the same JSON in another order"
        content.seek(8)
        content.write(ordered.ljust(length))
