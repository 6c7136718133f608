"""How the threads of this process wait for each other; nothing here may import torch, which reads it once."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reelign.parts import PartConfig
    from reelign.protocols import VideoModel
    from reelign.runtime.local import RuntimeConfig
    from reelign.stages.evaluate import Config as EvaluateConfig

SPINS = 20_000
"""Turns that a thread waits on its core before it sleeps: a few tenths of a millisecond, longer than nearly every wait
of a training step on an idle machine, and shorter than a slice of the kernel's, which a turning thread takes from
others on a busy one (`benchmarks/contention.py`)."""


def wait_shortly() -> None:
    """Bound the turns of GNU's OpenMP, which torch's CPU builds for Linux load, unless the user said how to wait."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


def bind_threads(config: "RuntimeConfig") -> None:
    """Tie torch's threads to cores where the CPU computes; a device's host has other things to do with its cores."""
    from reelign.runtime import threads
    from reelign.runtime.local import resolve

    if resolve(config).type == "cpu":
        threads.bind(config.threads)


def model(config: "PartConfig", runtime: "RuntimeConfig", root: str | None = None) -> "VideoModel":
    """A model where a runtime config says, with this process set up for it; runs below `root` share what is encoded."""
    from reelign.runtime import equip

    bind_threads(runtime)
    return equip.build(config, runtime, root)


def measures(model: "VideoModel", config: "EvaluateConfig", name: str, out: Path, weights: str, title: str) -> Any:
    """Evaluate weights under a bar of that title, into a folder that is there.

    Returns:
        What each measure found, by the name of the sampler.
    """
    from reelign.progress import Bar
    from reelign.runtime.local import Local
    from reelign.stages import evaluate

    with Bar() as bar:
        evaluation = evaluate.prepare(config)
        bar.begin(f"{title} (clips)", evaluation.clips, 0)
        for done in evaluate.run(Local(model), evaluation, name, out, weights, frozenset()):
            bar.step(done, {})
    files = [out / "evaluations" / f"{key}.json" for key in config.files(name)]
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return {row["sampler"]["name"]: row["measures"] for row in rows}
