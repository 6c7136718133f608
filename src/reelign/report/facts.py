"""What a run was: its model, its judging, its machine and its command."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reelign.report import words
from reelign.report.run import Run

KINDS = {
    "offline": "learned from clips or pairs that were there before",
    "online": "learned from clips of its own, scored by rewards",
    "collect": "let a script rank clips of its own into pairs; trained nothing",
    "evaluate": "only measured",
}
"""What each kind of stage did."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of what the run was."""

    name: str
    text: str
    more: str = ""
    code: bool = False


def facts(run: Run) -> tuple[Fact, ...]:
    """Base model, judging, device, command: those that the run folder tells."""
    found = [_model(run.config, run.about), _judged(run), _device(run), _command(run)]
    return tuple(fact for fact in found if fact)


def total_s(run: Run) -> float:
    """Wall-clock seconds of all stages."""
    return sum((stage.wall_s or 0.0 for stage in run.stages), start=0.0)


def _model(config: Mapping[str, Any], about: Mapping[str, Any]) -> Fact | None:
    model = config.get("model")
    if not isinstance(model, Mapping):
        return None
    name, weights, adapter = model.get("name"), model.get("weights"), model.get("adapter")
    text = f"{weights} ({name})" if weights else str(name)
    trained = "all weights were trained"
    if isinstance(adapter, Mapping):
        rank = adapter.get("rank") or _at(about, "settled", "adapter", "rank")
        kind = "LoRA" if adapter.get("name") == "lora" else words.clipped(str(adapter.get("name")), 80)
        trained = f"an adapter ({kind}{f', rank {rank}' if rank else ''}) was trained"
    return Fact("Base model", words.clipped(text, 200), trained)


def _judged(run: Run) -> Fact | None:
    if run.final is None:
        return None
    dataset = _at(run.config, "evaluate", "dataset", "path") or _at(run.config, "evaluate", "dataset", "name")
    text = f"{words.count(len(run.final.prompts), 'prompt')}, {words.count(run.final.members, 'clip')} each"
    more = [f"from {dataset}"] if dataset else []
    for view in run.views if run.others else ():
        if view.final is None:
            continue
        several = len(view.final.prompts)
        part = "" if several == len(run.final.prompts) else f", the first {words.count(several, 'prompt')} only"
        more.append(f"with {view.title}{part}")
    return Fact("Judged on", text, words.clipped("; ".join(more), 400))


def _device(run: Run) -> Fact | None:
    machine = run.stages[-1].machine if run.stages else {}
    device, threads, torch = (
        machine.get(key) or run.about.get(key) or _at(run.config, "runtime", key)
        for key in ("device", "threads", "torch")
    )
    if not device:
        return None
    also = [
        words.count(int(str(threads)[:9]), "CPU thread")
        if str(threads).isdecimal() and threads not in (0, "0")
        else "",
        f"PyTorch {torch}" if torch else "",
        f"Reelign {run.about['version']}" if run.about.get("version") else "",
    ]
    name = "the GPU where there is one, else the CPU" if device == "auto" else str(device)
    return Fact("Device", words.clipped(name, 200), words.clipped(", ".join(filter(None, also)), 200))


def _command(run: Run) -> Fact:
    given, seed = run.about.get("command"), _at(run.config, "run", "seed")
    more = f"seed {seed}" if seed is not None else ""
    if isinstance(given, list):
        given = shlex.join(str(word) for word in given)
    if isinstance(given, str) and given:
        return Fact("Command", words.clipped(given, 400), more, code=True)
    more = "; ".join(filter(None, ["with the recipe at the end of this page", more]))
    return Fact("Command", "reelign align recipe.yaml", more, code=True)


def _at(tree: Any, *path: str) -> Any:
    """What stands at a path of a recipe, or None."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
