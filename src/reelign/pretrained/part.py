"""A part of a model folder: compared with its stock class before a weight is read, then loaded by that class."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reelign import soundness
from reelign.errors import BadCheckpoint, cut
from reelign.pretrained import configs, headers
from reelign.pretrained.headers import Stored, Weights
from reelign.pretrained.paths import reading, size_of

log = logging.getLogger(__name__)

FLOATS = ("F64", "F32", "BF16", "F16")
PACKED = re.compile(
    r"(^|[._])(w?scales?(_weight|_inv|_input)?|absmax|quant_\w+|qweight|q?zeros|zero_point|g_idx|comfy_quant)$"
)
"""Last words of the names of what quantized weights come with."""


@dataclass(frozen=True)
class Part:
    """What a part's JSON files and headers say; they fit the class and each other."""

    kind: Any
    """Its stock class."""
    folder: Path
    config: Any
    """All settings: a dict of a diffusers class, a config object of a transformers class."""
    weights: Weights
    network: nn.Module | None
    """On the meta device, so without weights; none where names were not compared."""


def diffusers(kind: Any, folder: Path) -> Part:
    """A part that a diffusers class reads.

    Raises:
        BadCheckpoint: no such part, an incomplete or damaged one, one that could run code, or weights that are not
            exactly those of the class with this config.
    """
    config, weights = configs.diffusers(kind, folder / "config.json"), headers.find(folder, "diffusion_pytorch_model")
    network = _outline(folder, kind, weights, lambda: kind.from_config(config))
    _compare(folder, kind, weights, network)
    return Part(kind, folder, config, weights, network)


def transformers(kind: Any, folder: Path, exact: bool = True) -> Part:
    """The same for a transformers class; not `exact`: files may name weights in older ways and hold more than it has.

    Raises:
        BadCheckpoint: see `diffusers`; or an adapter lies beside the weights.
    """
    config, weights = configs.transformers(kind, folder / "config.json"), headers.find(folder, "model")
    if (folder / "adapter_config.json").exists():
        raise BadCheckpoint(f"{str(folder)!r} holds an adapter beside its weights; merge it, or take it out of there.")
    network = _outline(folder, kind, weights, lambda: kind(config)) if exact else None
    if network is None:
        _refuse_dtypes(folder, weights, dict.fromkeys(weights.tensors, torch.float32))
    else:
        _compare(folder, kind, weights, network)
    return Part(kind, folder, config, weights, network)


class _TooMany(Exception):
    """A network of more parameters than its files hold."""


def _outline(folder: Path, kind: Any, weights: Weights, build: Any) -> nn.Module:
    """The network on the meta device; given up once it has more parameters than the files, so that none is endless."""
    limit, seen = len(weights.tensors) + 8, 0  # tied weights are stored once

    def count(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen > limit:
            raise _TooMany

    handle = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        with reading(folder, kind.__name__), torch.device("meta"):
            return build()
    except BadCheckpoint as error:
        if isinstance(error.__cause__, _TooMany):
            raise BadCheckpoint(
                f"{str(folder)!r} holds {len(weights.tensors)} weights, but its config.json asks for more; "
                "its download may be incomplete, or the config is of another model."
            ) from error
        raise
    finally:
        handle.remove()


def _compare(folder: Path, kind: Any, weights: Weights, network: nn.Module) -> None:
    """Refuse files that are not exactly the network's weights."""
    stored, wanted = weights.tensors, network.state_dict()
    ignored = [re.compile(p) for p in getattr(network, "_keys_to_ignore_on_load_unexpected", None) or ()]
    more = [n for n in stored if n not in wanted and not any(p.search(n) for p in ignored)]
    if more:
        packed = any(PACKED.search(n) for n in more)
        raise BadCheckpoint(
            f"{str(folder)!r} holds {_first(more)}, which a {kind.__name__} has no use for; "
            + ("weights packed for inference" if packed else "weights of another model")
            + " cannot be trained, so give the original ones in full precision."
        )
    tied: Mapping[str, str] = getattr(network, "all_tied_weights_keys", {})
    partners = {a: b for pair in tied.items() for a, b in (pair, pair[::-1])}
    less = [n for n in wanted if n not in stored and partners.get(n) not in stored]
    if less:
        raise BadCheckpoint(f"{str(folder)!r} lacks {_first(less)}; its download may be incomplete.")
    _refuse_dtypes(folder, weights, {n: wanted[n].dtype for n in stored if n in wanted})
    for name, tensor in wanted.items():
        found = stored.get(name)
        if found and found.shape != tuple(tensor.shape):
            raise BadCheckpoint(
                f"{str(folder)!r} holds the weight {name!r} as {list(found.shape)}, but its config.json makes it "
                f"{list(tensor.shape)}; the two are of different models."
            )


def _refuse_dtypes(folder: Path, weights: Weights, wanted: Mapping[str, torch.dtype]) -> None:
    def bad(name: str, found: Stored) -> bool:
        return name in wanted and wanted[name].is_floating_point and found.dtype not in FLOATS

    odd = sorted(name for name, found in weights.tensors.items() if bad(name, found))
    if odd:
        raise BadCheckpoint(
            f"{str(folder)!r} holds {_first(odd)} as {weights.tensors[odd[0]].dtype}; "
            "give weights in float32, bfloat16 or float16."
        )


def _first(names: list[str]) -> str:
    """The first of some weights, and how many more there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"the weight {cut(sorted(names)[0])!r}{more}"


def load(part: Part, **options: Any) -> Any:
    """A part by its stock class, from the compared files only.

    Raises:
        BadCheckpoint: the class cannot read them, or some numbers are not finite.
    """
    weights = part.weights
    for file in weights.files:
        size_of(part.folder / file)
    if weights.passed_over:
        log.info("%s: the plain weights are taken, not %s", part.folder, ", ".join(weights.passed_over))
    if not isinstance(part.config, dict):
        # Said here, for a config may name an implementation that transformers would fetch.
        options |= {"config": part.config, "attn_implementation": "sdpa"}
    with reading(part.folder, part.kind.__name__), _quietly():
        network, info = part.kind.from_pretrained(
            part.folder,
            variant=weights.variant,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise BadCheckpoint(f"{str(part.folder)!r} lacks {_first(missing)}; its download may be incomplete.")
    for name, weight in network.named_parameters():
        if not soundness.finite(weight):
            raise BadCheckpoint(
                f"{str(part.folder)!r} holds numbers that are not finite in the weight {name!r}; "
                "it diverged or was damaged, so give another copy."
            )
    return network


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the bar of transformers, which it shows for every text encoder; what was set before stays."""
    from transformers.utils import logging as theirs

    shown = theirs.is_progress_bar_enabled()
    if shown:
        theirs.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            theirs.enable_progress_bar()
