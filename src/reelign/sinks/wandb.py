"""Weights & Biases: curves in wandb/ of the run folder, or sent to the service. Needs `pip install 'reelign[wandb]'`.

Nothing leaves the machine unless `mode` is online, for which `wandb login` comes before; what was kept can be sent
later with `wandb sync`.
"""

from typing import Literal

from reelign.events import About, Event
from reelign.parts import PartConfig
from reelign.sinks._tracking import Tracker
from reelign.sinks._tracking import check as check


class Config(PartConfig):
    """Where its curves are filed."""

    name: str = "wandb"
    project: str = "reelign"
    """Runs of one project are shown together."""
    entity: str = ""
    """The user or team; empty for the one that is logged in."""
    mode: Literal["offline", "online"] = "offline"
    """Whether anything is sent to the service."""


class Wandb(Tracker):
    """Owns one run of a project."""

    def send(self, event: Event) -> None:
        """Add points to the curves, each stage by its own steps."""
        if event.kind == "stage":
            self._run.define_metric(f"{event.stage}/*", step_metric=f"{event.stage}/step")
        super().send(event)


def build(config: Config, run: About) -> Wandb:
    """Begin a run of the project, or go on with it."""
    about = {"project": config.project, "entity": config.entity or None, "name": run.name, "id": run.id[:16]}
    return Wandb(
        config, {**about, "dir": str(run.folder), "config": dict(run.config), "mode": config.mode, "resume": "allow"}
    )
