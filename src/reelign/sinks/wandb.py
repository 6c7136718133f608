"""Weights & Biases: curves in wandb/ of the run folder, or sent to the service. Needs `pip install 'reelign[wandb]'`.

Nothing leaves the machine unless `mode` is online, for which `wandb login` comes before; what was kept can be sent
later with `wandb sync`.
"""

from typing import Literal

from reelign.events import About, Event
from reelign.parts import PartConfig
from reelign.sinks import _curves, _extra


class Config(PartConfig):
    """Where its curves are filed."""

    name: str = "wandb"
    project: str = "reelign"
    """Runs of one project are shown together."""
    entity: str = ""
    """The user or team; empty for the one that is logged in."""
    mode: Literal["offline", "online"] = "offline"
    """Whether anything is sent to the service."""


class Tracker:
    """Owns one run of a project."""

    def __init__(self, config: Config, run: About) -> None:
        self._run = _extra.bring("wandb").init(
            project=config.project,
            entity=config.entity or None,
            name=run.name,
            id=run.id[:16],
            dir=str(run.folder),
            config=dict(run.config),
            mode=config.mode,
            resume="allow",
        )

    def send(self, event: Event) -> None:
        """Add points to the curves."""
        if event.kind == "stage":
            self._run.define_metric(f"{event.stage}/*", step_metric=f"{event.stage}/step")
        values = _curves.row(event)
        if values:
            self._run.log(values)

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


def check(config: Config) -> None:
    """See that its package is there.

    Raises:
        MissingExtra: it is not.
    """
    _extra.need("wandb")


def build(config: Config, run: About) -> Tracker:
    """Begin a run of the project, or go on with it."""
    return Tracker(config, run)
