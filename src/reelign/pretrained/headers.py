"""Which safetensors files a part's weights are, and what their headers say: names, dtypes, shapes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from reelign.errors import BadCheckpoint, cut
from reelign.pretrained.paths import read_json, size_of

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file."""

    file: str
    dtype: str
    """As safetensors calls it: F32, BF16, ..."""
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """All that a part's files hold."""

    folder: Path
    variant: str | None
    """Such as fp16, where only files of that variant are there."""
    index: str | None
    """The file that says which shard holds what, if the weights are in shards."""
    files: tuple[str, ...]
    tensors: Mapping[str, Stored]
    passed_over: tuple[str, ...]
    """Variants that lie beside the plain files and are not read."""

    def plain(self, name: str) -> str:
        """A file's name without its variant."""
        return name.replace(f".{self.variant}", "", 1) if self.variant else name


def find(folder: Path, stem: str) -> Weights:
    """The weights of a part whose files are called `stem`.safetensors, or the like.

    Plain files are taken before those of a variant; a variant only if there is no other.

    Raises:
        BadCheckpoint: no safetensors files of that name, several that could be meant, one that is lost or damaged, or
            an index that names anything but safetensors files beside it.
    """
    names = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    choices: dict[str | None, list[str]] = {}
    for name in sorted(names):
        found = re.fullmatch(rf"{stem}(?:\.(\w+))?\.safetensors|{stem}\.safetensors\.index(?:\.(\w+))?\.json", name)
        if found:
            choices.setdefault(found[1] or found[2], []).append(name)
    if not choices:
        raise BadCheckpoint(f"{str(folder)!r} has {_instead(names, stem)}.")
    if None not in choices and len(choices) > 1:
        raise BadCheckpoint(
            f"{str(folder)!r} has the variants {' and '.join(map(str, choices))} and no {stem}.safetensors; keep one."
        )
    variant = None if None in choices else next(iter(choices))
    if len(choices[variant]) > 1:
        raise BadCheckpoint(f"{str(folder)!r} has both {' and '.join(choices[variant])}; keep one.")
    (entry,) = choices[variant]
    index = entry if entry.endswith(".json") else None
    mapped = _mapped(folder / index) if index else None
    files = tuple(sorted(set(mapped.values()))) if mapped else (entry,)
    tensors: dict[str, Stored] = {}
    for file in files:
        for name, stored in _header(folder / file).items():
            if name in tensors:
                raise BadCheckpoint(
                    f"{str(folder)!r} has the weight {name!r} twice, in {tensors[name].file} and {file}."
                )
            tensors[name] = stored
    if mapped is not None and mapped != {name: stored.file for name, stored in tensors.items()}:
        raise BadCheckpoint(
            f"{str(folder / entry)!r} does not say what its shards hold; its download may be incomplete."
        )
    passed_over = tuple(sorted(v for v in choices if v is not None and v != variant))
    return Weights(folder, variant, index, files, tensors, passed_over)


def _instead(names: Iterable[str], stem: str) -> str:
    """What a folder without weights has in their place, and what to do."""
    safe = "Reelign loads *.safetensors only, so convert them first"
    for found, what in (
        (sorted(n for n in names if n.endswith(PICKLES)), "only pickled weights ({}), which can run code when loaded"),
        (sorted(n for n in names if n.endswith(".gguf")), "only weights in the GGUF format ({}), packed for inference"),
    ):
        if found:
            return f"{what.format(cut(', '.join(found)))}; {safe}"
    others = sorted(n for n in names if n.endswith(".safetensors"))
    if others:
        return (
            f"{cut(', '.join(others))}, but no {stem}.safetensors and no index of shards; "
            "its download may be incomplete"
        )
    return f"no weights; {safe}"


def _mapped(path: Path) -> dict[str, str]:
    mapped = read_json(path).get("weight_map")
    if not isinstance(mapped, dict) or not mapped:
        raise BadCheckpoint(f"{str(path)!r} has no weight_map, which says which shard holds what.")
    for file in mapped.values():
        if not isinstance(file, str) or not re.fullmatch(r"\w[\w.-]*\.safetensors", file):
            raise BadCheckpoint(
                f"{str(path)!r} names {cut(file)!r}; weights are read from *.safetensors files beside it only."
            )
    return mapped


def _header(path: Path) -> dict[str, Stored]:
    size_of(path)
    try:
        with safe_open(path, framework="np") as file:
            form = (file.metadata() or {}).get("format", "pt")
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            found = {name: Stored(path.name, p.get_dtype(), tuple(p.get_shape())) for name, p in parts.items()}
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(
            f"{str(path)!r} cannot be read as safetensors ({cut(error)}); it is damaged or its download stopped."
        ) from error
    if form != "pt":
        raise BadCheckpoint(f"{str(path)!r} holds weights of {cut(form)!r}, but PyTorch's are needed.")
    return found
