"""What a run's bits hang on beside its recipe, and what it means for a resumed run that some of it has changed."""

from collections.abc import Mapping
from typing import Any

import torch

import reelign
from reelign import panel
from reelign.driver.recipe import Recipe, all_datasets
from reelign.driver.state import World
from reelign.errors import BadConfig
from reelign.opened import Datasets
from reelign.protocols import Dataset, VideoModel
from reelign.settings import in_run

Identity = dict[str, str | int]


def around(recipe: Recipe, model: VideoModel, stage: int, opened: Datasets) -> World:
    """The world of a run at the beginning of a stage: base weights, machine, metrics, data of this and later stages."""
    # Once all stages are done, nothing is read or judged any more.
    left = stage < len(recipe.stages)
    # What the run itself collects has a record of its own.
    read = [each for each in all_datasets(recipe, stage) if left and not in_run(each[1])]
    data = {place: _identity(opened(config)) for place, config in read}
    metrics = panel.versions(recipe.evaluate.asks) if left and recipe.evaluate else {}
    return World(base=_base(recipe, model), data=data, metrics=metrics, machine=_machine(model))


def changes(then: World, now: World) -> list[str]:
    """What has changed that a resumed run must not pass over, each as part of a sentence.

    What says nothing of itself, then or now, is not compared.
    """
    differ = then.base and now.base and then.base != now.base
    base = [f"the base weights ({_short(then.base)} then, {_short(now.base)} now)"] if differ else []
    data = [f"the data of {place} ({_difference(*pair)})" for place, pair in _unlike(then.data, now.data)]
    return [
        *base,
        *data,
        *_versions("reward", then.rewards, now.rewards),
        *_versions("metric", then.metrics, now.metrics),
    ]


def _versions(kind: str, then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [f"the {kind} {name} (version {a} then, {b} now)" for name, (a, b) in _unlike(then, now)]


def _unlike(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, tuple[Any, Any]]]:
    pairs = {key: (then[key], now[key]) for key in sorted(then.keys() & now.keys())}
    return [(key, (a, b)) for key, (a, b) in pairs.items() if a and b and a != b]


def moves(then: World, now: World) -> list[str]:
    """What has changed on the machine: a run goes on there, but perhaps to other bits."""
    keys = [key for key in now.machine if then.machine.get(key, "") != now.machine[key]]
    return [f"{key} {then.machine.get(key, 'unknown')} then, {now.machine[key]} now" for key in keys]


def _identity(dataset: Dataset) -> Identity:
    """What a dataset says of its content; nothing where a dataset from outside says nothing."""
    give = getattr(dataset, "identity", None)
    return dict(give()) if give else {}


def _base(recipe: Recipe, model: VideoModel) -> str:
    base = getattr(model, "identity", "")
    if not isinstance(base, str):
        raise BadConfig(
            f"the model {recipe.model.name!r} has an `identity` that is no text; make it a property that gives one, or "
            "leave it out."
        )
    return base


def _machine(model: VideoModel) -> dict[str, str]:
    device = str(model.device)
    if model.device.type == "cuda":
        device += f" ({torch.cuda.get_device_name(model.device)})"
    threads = str(torch.get_num_threads())
    return {"reelign": reelign.__version__, "torch": torch.__version__, "device": device, "threads": threads}


def _difference(then: Identity, now: Identity) -> str:
    """Counts where they differ; what differs in content only has other digests."""
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    counts = [key for key in keys if isinstance(then.get(key, now.get(key)), int)] or keys
    return ", ".join(f"{key} {_short(then.get(key, '-'))} then, {_short(now.get(key, '-'))} now" for key in counts)


def _short(value: object) -> str:
    text = str(value) or "unknown"
    return text if len(text) <= 12 else text[:12]
