"""Writing a trained Wan model as a stock pipeline folder, in the layout and the dtypes of the folder it came from."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from reelign import pretrained
from reelign.errors import BadCheckpoint, RunStopped
from reelign.files import usual_mode
from reelign.models._pipeline import Pipeline
from reelign.parts import is_outside
from reelign.pretrained import Part
from reelign.soundness import finite
from reelign.weights import Adapter

log = logging.getLogger(__name__)

DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def export(
    pipeline: Pipeline,
    base: Mapping[Path, str],
    network: nn.Module,
    adapter: Adapter | None,
    folder: Path,
    shift: float | None,
) -> None:
    """Write the parts that model_index.json names, with the trained transformer, and card.json; nothing else.

    With an adapter the transformer has it merged in, and a folder of its name holds it for the base; that of one from
    outside is called `adapter`.

    Args:
        pipeline: what was loaded.
        base: digests of its files as they were then.
        network: the transformer, trained.
        adapter: what of it trained; all weights if there is none.
        folder: to write to.
        shift: of the sampler.

    Raises:
        RunStopped: a trained weight is not finite, or too large for the dtype that its file has.
        BadCheckpoint: a file that is to be copied or merged is not what it was when the model was loaded.
    """
    trained = {*pretrained.files_of(pipeline.transformer)} - {pipeline.transformer.folder / "config.json"}
    copied = {path: digest for path, digest in base.items() if path not in trained}
    _refuse_changed(base if adapter else copied)
    for source in copied:
        _carry(pipeline, source, folder)
    _card(pipeline, folder, shift)
    _transformer(pipeline.transformer, network, adapter, folder / "transformer")
    if adapter:
        _beside(adapter, network, folder)


def _beside(adapter: Adapter, network: nn.Module, folder: Path) -> None:
    name = adapter.form.name
    own = folder / ("adapter" if is_outside(name) else name)
    own.mkdir(exist_ok=True)
    adapter.export(network, own)
    if not adapter.merged(network):
        log.warning("%s is not merged, so the exported pipeline is the base; what it learnt is in %s/", name, own.name)


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


def _transformer(part: Part, network: nn.Module, adapter: Adapter | None, target: Path) -> None:
    """The trained weights in the source's shards, each tensor in the dtype it had there."""
    target.mkdir(parents=True, exist_ok=True)
    weights = _whole(part, network) if adapter is None else _merged(part, adapter.merged(network))
    for file, own in weights:
        path = target / part.weights.plain(file)
        if own is None:
            pretrained.copy(part.folder / file, path)
            continue
        with usual_mode(path):
            save_file(own, path, metadata={"format": "pt"})
    if part.weights.index:
        _index(part, target / part.weights.plain(part.weights.index))
    dtypes = sorted({str(DTYPES[s.dtype]).removeprefix("torch.") for s in part.weights.tensors.values()})
    log.info("the exported transformer is in %s, as the weights it came from", " and ".join(dtypes))


Shards = Iterator[tuple[str, dict[str, Tensor] | None]]
"""A file's name and what it is to hold; nothing where that is what it holds in the base."""


def _whole(part: Part, network: nn.Module) -> Shards:
    """A network of which all weights trained."""
    trained, stored = network.state_dict(), part.weights.tensors
    for file in part.weights.files:
        names = [n for n, s in stored.items() if s.file == file and n in trained]
        yield file, {n: _cast(n, trained[n], DTYPES[stored[n].dtype]) for n in names}


def _merged(part: Part, changes: Mapping[str, Callable[[Tensor], Tensor]]) -> Shards:
    """The base's own weights with an adapter added in: those in memory may be coarser."""
    assert changes.keys() <= part.weights.tensors.keys(), "an adapter changes weights of the base"
    for file in part.weights.files:
        with pretrained.reading(part.folder, part.kind.__name__), safe_open(part.folder / file, "pt") as content:
            own = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - not a dict
        changed = False
        for name in [n for n in own if n in changes]:
            base = own[name].float()
            value = changes[name](base)
            if not torch.equal(value, base):
                own[name], changed = _cast(name, value, own[name].dtype), True
        yield file, own if changed else None


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
