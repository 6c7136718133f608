"""Mutants of what users bring - recipes, data, model folders - and what the command line makes of them."""

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from tests.faults import chain, damage, mutate
from tests.faults.operations import Forbid
from tests.faults.verdicts import wrong_with
from tests.faults.warm import ROOT, Warm

WAN = "reelign.models.wan"
"""Takes seconds to import."""
RECIPES = (*sorted((ROOT / "recipes").glob("*.yaml")), ROOT / "src" / "reelign" / "playground" / "demo.yaml")


def dry_run(warm: Warm, folder: Path) -> str:
    """What `align --dry-run` makes of recipe.yaml: "same" for fine, "sentence", or what is wrong."""
    ended = warm("align", "recipe.yaml", "--dry-run", folder=folder, before=Forbid(), imports=WAN)
    return wrong_with(ended, quiet=True) or ("same" if ended.code == 0 else "sentence")


def run(warm: Warm, folder: Path) -> str:
    """The same for a real run from its start, which may write below runs/."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    ended = warm("align", "recipe.yaml", folder=folder, before=Forbid(str(folder.resolve() / "runs")), imports=WAN)
    return wrong_with(ended) or ("same" if ended.code == 0 else "sentence")


def recipes() -> list[str]:
    """The recipes that are shipped and the chain's, with data and model folder as `lay_out` makes them."""
    texts = [path.read_text(encoding="utf-8").replace("{data}", "data") for path in RECIPES]
    texts = [text.replace("models/Wan2.1-T2V-1.3B-Diffusers # ", "playground # ") for text in texts]
    return [
        text.replace("  size: {frames: 33", "  # size: {frames: 33") for text in [*texts, yaml.safe_dump(chain.tree())]
    ]


def recipe(rng: random.Random, bases: list[str]) -> bytes:
    """A mutant of one of them, by its text or by its tree."""
    base = rng.choice(bases)
    if rng.random() < 0.4:
        return mutate.text(rng, base).encode("utf-8", "surrogatepass")
    return yaml.safe_dump(mutate.tree(rng, yaml.safe_load(base)), sort_keys=False, allow_unicode=True).encode()


@contextmanager
def mutated(rng: random.Random, path: Path) -> Iterator[str]:
    """A file is changed, by what it is or as accidents do, and afterwards as it was; says what was done."""
    kept = path.with_name(f".{path.name}.kept")
    path.rename(kept)
    shutil.copy(kept, path)
    try:
        yield _change(rng, path, kept)
    finally:
        damage.remove(path)
        kept.rename(path)


def _change(rng: random.Random, path: Path, kept: Path) -> str:
    if rng.random() < 0.15:
        what = rng.choice([what for what in sorted(damage.FILES) if what != "another run's"])
        damage.FILES[what](path, kept)
        return what
    how = rng.choice(("tree", "tree", "tree", "text", "bytes"))
    given = path.read_bytes()
    if path.suffix == ".safetensors":
        path.write_bytes(_header(rng, given) if how == "tree" else mutate.data(rng, given[:4000]) + given[4000:])
    elif how == "tree" and path.suffix == ".json":
        path.write_text(json.dumps(mutate.tree(rng, json.loads(given))))
    elif how == "tree" and path.suffix == ".jsonl":
        rows = [json.loads(line) for line in given.split(b"\n") if line]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in mutate.tree(rng, rows)))
    elif how == "bytes" or path.suffix == ".mp4":
        path.write_bytes(mutate.data(rng, given))
    else:
        path.write_bytes(mutate.text(rng, given.decode()).encode("utf-8", "surrogatepass"))
    return how


def _header(rng: random.Random, given: bytes) -> bytes:
    """A safetensors file with another header."""
    size = int.from_bytes(given[:8], "little")
    header = json.dumps(mutate.tree(rng, json.loads(given[8 : 8 + size]))).encode()
    said = len(header) if rng.random() < 0.9 else rng.choice((0, 1, 2**32, 2**63, 2**64 - 1))
    return said.to_bytes(8, "little") + header + given[8 + size :]
