"""What a run's bits hang on beside its recipe, and what it means for a resumed run that some of it has changed."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

import reelign
from reelign import parts
from reelign.driver.recipe import Recipe, datasets_in, names_run
from reelign.driver.state import World
from reelign.errors import BadConfig
from reelign.panel import Metrics
from reelign.parts import PartConfig
from reelign.protocols import VideoModel

Identity = dict[str, str | int]


def around(recipe: Recipe, model: VideoModel, stage: int) -> World:
    """The world of a run at the beginning of a stage: base weights, machine, metrics, data of this and later stages."""
    data = {place: _identity(config) for place, config in _datasets(recipe, stage)}
    judging = recipe.evaluate if stage < len(recipe.stages) else None
    metrics = Metrics.build(judging.metrics).versions if judging else {}
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


def _datasets(recipe: Recipe, first: int) -> Iterator[tuple[str, PartConfig]]:
    """Datasets still to be read, by their place; what the run itself collects has a record of its own."""
    owners = [(f"stages.{i}", stage) for i, stage in enumerate(recipe.stages) if i >= first]
    # Once all stages are done, nothing is judged any more either.
    if owners and recipe.evaluate:
        owners.append(("evaluate", recipe.evaluate))
    for owner, settings in owners:
        for where, config in datasets_in(settings, owner):
            if not names_run(config):
                yield where, config


def _identity(config: PartConfig) -> Identity:
    """What a dataset says of its content; nothing where a dataset from outside says nothing."""
    give = getattr(parts.build("dataset", config), "identity", None)
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
