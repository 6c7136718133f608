"""What sinks that draw curves share: packages that Reelign does not bring, and rows for trackers of one table a run."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from reelign.errors import MissingExtra
from reelign.events import Event
from reelign.parts import PartConfig


def check(config: PartConfig) -> None:
    """See that the package of a sink's name is there; nothing is imported.

    Raises:
        MissingExtra: it is not.
    """
    if find_spec(config.name) is None:
        raise MissingExtra(
            f"the sink {config.name!r} needs a package that is not installed; run pip install "
            f"'reelign[{config.name}]', or leave the sink out."
        )


class Tracker:
    """Owns one run of a tracker whose rows have names of their own for each stage."""

    def __init__(self, config: PartConfig, about: dict[str, Any]) -> None:
        """Begin a run, or go on with it, as `about` tells the package's `init`."""
        check(config)
        self._run = import_module(config.name).init(**about)

    def send(self, event: Event) -> None:
        """Add points to the curves."""
        values = row(event)
        if values:
            self._run.log(values)

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


def row(event: Event) -> dict[str, Any]:
    """An event's numbers by name, with the step of its stage beside them; nothing where it has none.

    Example:
        >>> told = {"label": "steps/sft@20", "means": {"clip_right": 0.5}, "others": {}}
        >>> row(Event(0.0, "evaluation", "sft", 20, 40, told))
        {'sft/held-out/clip_right': 0.5, 'sft/step': 20}
    """
    named = {f"{event.stage}/{name}": value for name, value in points(event).items()}
    return {**named, f"{event.stage}/step": event.step} if named else {}


def points(event: Event) -> Mapping[str, float]:
    """The points that an event adds to the curves of its stage, by curve: under other samplers than the main one too.

    Example:
        >>> told = {"label": "sft", "means": {"clip_right": 0.5}, "others": {"s16g3": {"clip_right": 0.6}}}
        >>> points(Event(0.0, "evaluation", "sft", 40, 40, told))
        {'held-out/clip_right': 0.5, 'held-out@s16g3/clip_right': 0.6}
    """
    if event.kind != "evaluation":
        return event.data if event.kind == "step" else {}
    means = {"held-out": event.data["means"]}
    means |= {f"held-out@{sampler}": own for sampler, own in event.data["others"].items()}
    return {f"{where}/{name}": mean for where, own in means.items() for name, mean in own.items() if mean is not None}
