"""A working folder with all that users bring: clips, prompts, pairs and priors in every layout, and a model folder."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from tests.faults.warm import ROOT


def lay_out(folder: Path) -> None:
    """`model/`, which has an index, and `data/`, in the geometry of that model."""
    import torch
    from tests.parts.written_pairs import write_pairs

    from reelign.playground import writing
    from reelign.playground.world import corpora

    shutil.copytree(ROOT / "src" / "reelign" / "playground" / "pipeline", folder / "model")
    _cut_in_shards(folder / "model" / "transformer")
    data = folder / "data"
    clips = torch.rand(3, 9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    prompts, held_out = corpora.prompts(18, 0), corpora.prompts(18, 0, held_out=True)
    texts = prompts[:3]
    for name in ("clips", "table", "sheet", "lists"):
        writing.write_clip_folder(data / name, clips, texts, 8)
    _describe(data, texts)
    slices = [{"color": "red"}, {"color": "blue"}] * 9
    (data / "prompts.txt").write_text("".join(f"{text}\n" for text in prompts))
    writing.write_prompts(data / "prompts.jsonl", prompts, slices)
    writing.write_prompts(data / "held_out.jsonl", held_out, slices)
    write_pairs(data / "pairs.jsonl", texts, clips, clips.flip(0) * 0.5, 8)
    rows = "".join(f'pairs/00000{i}-chosen.mp4,pairs/00000{i}-rejected.mp4,"{t}",A,B\n' for i, t in enumerate(texts))
    (data / "judged.csv").write_text(f"path_A,path_B,prompt,Overall,VQ\n{rows}")
    (data / "priors.json").write_text(json.dumps(dict.fromkeys(prompts, 0.4)))


def _describe(data: Path, texts: Sequence[str]) -> None:
    """The captions of three folders in one table each, or in two lists."""
    rows = "".join(json.dumps({"file_name": f"00000{i}.mp4", "text": text}) + "\n" for i, text in enumerate(texts))
    (data / "table" / "metadata.jsonl").write_text(rows)
    rows = "".join(f'00000{i}.mp4,"{text}"\n' for i, text in enumerate(texts))
    (data / "sheet" / "metadata.csv").write_text(f"file_name,caption\n{rows}")
    (data / "lists" / "prompts.txt").write_text("".join(f"{text}\n" for text in texts))
    (data / "lists" / "videos.txt").write_text("".join(f"00000{i}.mp4\n" for i in range(len(texts))))
    for name in ("table", "sheet", "lists"):
        for note in (data / name).glob("0*.txt"):
            note.unlink()


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
        "sampler": {"steps": 2}, "method": {"name": "grpo", "window": 1, "among": 1, "modules": list(modules)},
        "rewards": ["playground_motion"],
    }  # fmt: skip


BPGO = {"name": "bpgo", "prior": "given", "file": "data/priors.json"}
STAGES = {
    "prompts.txt": _online("data/prompts.txt"),
    "prompts.jsonl": _online("data/prompts.jsonl"),
    "priors.json": _online("data/prompts.txt", BPGO),
    "clips/000001.txt": _offline("sft", name="clip_folder", path="data/clips"),
    "clips/000001.mp4": _offline("sft", name="clip_folder", path="data/clips", quarantine=0.5),
    "clips/000002.mp4": _offline("sft", name="clip_folder", path="data/clips", fit="resize"),
    "table/metadata.jsonl": _offline("sft", name="clip_folder", path="data/table"),
    "sheet/metadata.csv": _offline("sft", name="clip_folder", path="data/sheet"),
    "lists/prompts.txt": _offline("sft", name="clip_folder", path="data/lists"),
    "lists/videos.txt": _offline("sft", name="clip_folder", path="data/lists"),
    "pairs.jsonl": _offline("dpo", name="pair_list", path="data/pairs.jsonl"),
    "judged.csv": _offline("dpo", name="pair_list", path="data/judged.csv"),
    "pairs/000000-chosen.mp4": _offline("dpo", name="pair_list", path="data/pairs.jsonl"),
}
"""Each kind of data file that users bring, and a stage that reads it."""
ON_MODEL = _offline("sft", name="playground")
"""A stage that needs nothing but a model."""


def write_recipe(folder: Path, stage: dict[str, Any], weights: str = "playground") -> None:
    """A recipe of one stage, as recipe.yaml."""
    recipe = {"run": {"name": "run"}, "model": {"name": "wan", "weights": weights}, "stages": [stage]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
