"""A short run of every kind of stage on the closed-form model, and what of it must be the same bits."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

NAME = "chain"
DATA = {"name": "tests.parts.gaussian_data:build", "mean": 0.5, "var": 0.002, "size": 4}
REWARD = {"name": "tests.parts.linear_reward:build", "k": 0.5, "limit": 0.5}
GATE = {"targets": ["level"], "guards": ["level"]}

TIMES = ("wall_s", "started")
"""Ends of the names of values that say when, or how long."""
OWN = {
    "config.json": {"id", "seal"},
    "state.json": {"run", "number", "self", "sha256", "bytes", "data"},
    "final.json": {"of", "before"},
    "collected.jsonl": {"run"},
}
"""By file, names of values that are a run's own: its id, how often it was saved, digests of what holds times, and the
data still to be read where it was last started."""
UNLIKE = ("report.html", "log.txt", "run.json", ".lock")
"""Files that hold times only, or nothing."""


def tree(seed: int = 3) -> dict[str, Any]:
    """The recipe: SFT, whose gate fails; GRPO with BPGO and a pull; pairs from the policy; DPO on them."""
    return {
        "run": {"name": NAME, "seed": seed, "save_every": 2},
        "model": {"name": "gaussian", "side": 16, "mean": 0.5, "var": 0.002},
        "evaluate": {
            "dataset": DATA,
            "samplers": [{"steps": 2, "guidance": 1.0}, {"name": "guided", "steps": 2, "prompts": 2}],
            "metrics": ["tests.parts.mean_level:build"],
            "videos": 1,
        },
        "stages": [
            {
                "name": "offline",
                "steps": 3,
                "batch": 4,
                "dataset": {**DATA, "mean": 0.45},
                "method": "sft",
                "learner": {"lr": 0.01, "ema": 0.5},
                "gate": GATE,
            },
            {
                "name": "online",
                "steps": 3,
                "prompts": 2,
                "group": 4,
                "dataset": DATA,
                "sampler": {"steps": 3},
                "method": {"name": "grpo", "window": 1, "among": 2, "kl": 0.01, "modules": ["bpgo"]},
                "rewards": [REWARD],
                "learner": {"lr": 0.01},
                "gate": GATE,
            },
            {
                "name": "collect",
                "prompts": 4,
                "per_step": 2,
                "members": 2,
                "dataset": DATA,
                "sampler": {"steps": 2},
                "rewards": [REWARD],
                "noise": 0.0,
                "tie": 0.0,
            },
            {
                "name": "offline",
                "steps": 3,
                "batch": 2,
                "dataset": {"name": "pair_list", "path": "{run}/pairs/pairs.jsonl"},
                "method": "dpo",
                "learner": {"lr": 0.01},
                "gate": GATE,
            },
        ],
    }


def lay_out(folder: Path, seed: int = 3) -> Path:
    """A working folder with the recipe in it; gives the folder that the run will have."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree(seed), sort_keys=False), encoding="utf-8")
    return folder / "runs" / NAME


def bits(run: Path) -> dict[str, str]:
    """The sha256 of every file of a run that must be the same in every run of its recipe, by its path."""
    found = {}
    for path in files(run):
        name = str(path.relative_to(run))
        if not name.startswith(UNLIKE):
            found[name] = hashlib.sha256(_without_times(path)).hexdigest()
    return found


def files(run: Path) -> Iterator[Path]:
    """All plain files, sorted; folders that are links are not followed."""
    for folder, _, names in sorted(os.walk(run)):
        yield from (path for name in sorted(names) if (path := Path(folder) / name).is_file())


def _without_times(path: Path) -> bytes:
    """A file's bytes; of JSON, the values that are not a matter of the clock or of the run's own name."""
    data, own = path.read_bytes(), OWN.get(path.name, set())
    try:
        if path.suffix == ".json":
            return json.dumps(_timeless(json.loads(data), own)).encode()
        if path.suffix == ".jsonl":
            return json.dumps([_timeless(json.loads(line), own) for line in data.split(b"\n") if line]).encode()
    except ValueError:  # damaged
        return data
    return data


def _timeless(value: Any, own: set[str]) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v, own) for k, v in value.items() if not k.endswith(TIMES) and k not in own}
    return [_timeless(v, own) for v in value] if isinstance(value, list) else value
