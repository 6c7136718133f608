"""Trackio: curves in a local dashboard, kept on this machine. Needs `pip install 'reelign[trackio]'`.

Look at it with `trackio show`. A run that is taken up again goes on under its name.
"""

from reelign.events import About
from reelign.parts import PartConfig
from reelign.sinks._tracking import Tracker
from reelign.sinks._tracking import check as check


class Config(PartConfig):
    """Where its curves are filed."""

    name: str = "trackio"
    project: str = "reelign"
    """Runs of one project are shown together."""


def build(config: Config, run: About) -> Tracker:
    """Begin a run of the project, or go on with it."""
    about = {"project": config.project, "name": f"{run.name}-{run.id[:8]}", "config": dict(run.config)}
    return Tracker(config, {**about, "resume": "allow", "embed": False})
