"""Mutants of what users bring - recipes, data, model folders - and what the command line makes of them."""

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from tests.faults import chain, damage, mutate
from tests.faults.operations import Forbid
from tests.faults.verdicts import wrong_with
from tests.faults.warm import ROOT, Warm

WAN = "reelign.models.wan"
"""Takes seconds to import."""
RECIPES = (*sorted((ROOT / "recipes").glob("*.yaml")), ROOT / "src" / "reelign" / "cli" / "demo.yaml")


def dry_run(warm: Warm, folder: Path) -> str:
    """What `align --dry-run` makes of recipe.yaml: "same" for fine, "sentence", or what is wrong."""
    ended = warm("align", "recipe.yaml", "--dry-run", folder=folder, before=Forbid(), imports=WAN)
    return wrong_with(ended, quiet=True) or ("same" if ended.code == 0 else "sentence")


def run(warm: Warm, folder: Path) -> str:
    """The same for a real run, which may write below runs/."""
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


SHAPES = ("circle", "square", "star", "ring", "cross", "heart")


def lay_out(folder: Path) -> None:
    """`model/`, which has an index, and `data/`: clips, prompts and pairs in every layout, of the model's size."""
    import torch

    from reelign.datasets import _write
    from reelign.playground import package

    shutil.copytree(package.FOLDER, folder / "model")
    _cut_in_shards(folder / "model" / "transformer")
    torch.manual_seed(0)
    clips = torch.rand(3, 9, 3, 32, 32)
    texts = ["a red ball", "a blue box moves left", "two green balls"]
    _write.write_clip_folder(folder / "data" / "clips", clips, texts, 8)
    _write.write_clip_folder(folder / "data" / "table", clips, texts, 8)
    prompts = [f"a {color} {shape}" for color in ("red", "green", "blue") for shape in SHAPES]
    rows = "".join(f'{{"file_name": "00000{i}.mp4", "text": "{t}"}}\n' for i, t in enumerate(texts))
    (folder / "data" / "table" / "metadata.jsonl").write_text(rows)
    slices = [{"color": text.split()[1]} for text in prompts]
    _write.write_prompts(folder / "data" / "prompts.jsonl", prompts, slices)
    _write.write_prompts(folder / "data" / "prompts.txt", prompts)
    _write.write_prompts(folder / "data" / "held_out.jsonl", [f"{text} moves left" for text in prompts], slices)
    _write.write_pairs(folder / "data" / "pairs.jsonl", texts, clips, clips.flip(0) * 0.5, 8)
    (folder / "data" / "lists").mkdir()
    for clip in (folder / "data" / "clips").glob("*.mp4"):
        shutil.copy(clip, folder / "data" / "lists")
    (folder / "data" / "lists" / "prompts.txt").write_text("".join(f"{text}\n" for text in texts))
    (folder / "data" / "lists" / "videos.txt").write_text("".join(f"00000{i}.mp4\n" for i in range(3)))
    rows = "".join(f"pairs/00000{i}-chosen.mp4,pairs/00000{i}-rejected.mp4,{t},A,B\n" for i, t in enumerate(texts))
    (folder / "data" / "judged.csv").write_text(f"path_A,path_B,prompt,Overall,VQ\n{rows}")
    (folder / "data" / "priors.json").write_text(json.dumps(dict.fromkeys(prompts, 0.4)))


def _cut_in_shards(part: Path) -> None:
    """Lay a part's weights out in two files and an index, as large models are."""
    from safetensors.torch import load_file, save_file

    (whole,) = part.glob("*.safetensors")
    weights = load_file(whole)
    places = {name: f"{whole.stem}-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(weights))}
    for file in set(places.values()):
        save_file({name: w for name, w in weights.items() if places[name] == file}, part / file, {"format": "pt"})
    index = {"metadata": {"total_size": sum(w.nbytes for w in weights.values())}, "weight_map": places}
    (part / f"{whole.name}.index.json").write_text(json.dumps(index))
    whole.unlink()


def _offline(method: str, **dataset: Any) -> dict[str, Any]:
    return {"name": "offline", "steps": 1, "batch": 1, "method": method, "dataset": dataset}


def _online(path: str, *modules: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "online", "steps": 1, "prompts": 2, "group": 2, "dataset": {"name": "prompt_file", "path": path},
        "method": {"name": "grpo", "modules": list(modules)}, "rewards": ["playground_motion"],
    }  # fmt: skip


DATA = {
    "prompts.txt": _online("data/prompts.txt"),
    "prompts.jsonl": _online("data/prompts.jsonl"),
    "priors.json": _online("data/prompts.txt", {"name": "bpgo", "prior": "given", "file": "data/priors.json"}),
    "clips/000001.txt": _offline("sft", name="clip_folder", path="data/clips"),
    "clips/000001.mp4": _offline("sft", name="clip_folder", path="data/clips", quarantine=0.5),
    "clips/000002.mp4": _offline("sft", name="clip_folder", path="data/clips", fit="resize"),
    "table/metadata.jsonl": _offline("sft", name="clip_folder", path="data/table"),
    "lists/prompts.txt": _offline("sft", name="clip_folder", path="data/lists"),
    "lists/videos.txt": _offline("sft", name="clip_folder", path="data/lists"),
    "pairs.jsonl": _offline("dpo", name="pair_list", path="data/pairs.jsonl"),
    "judged.csv": _offline("dpo", name="pair_list", path="data/judged.csv"),
    "pairs/000000-chosen.mp4": _offline("dpo", name="pair_list", path="data/pairs.jsonl"),
}
"""Each kind of file that users bring, and a stage that reads it."""


ON_MODEL = _offline("sft", name="playground")


def write_recipe(folder: Path, stage: dict[str, Any], weights: str = "playground") -> None:
    """A recipe of one stage, as recipe.yaml."""
    recipe = {"run": {"name": "run"}, "model": {"name": "wan", "weights": weights}, "stages": [stage]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))


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
