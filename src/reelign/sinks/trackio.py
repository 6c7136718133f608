"""Trackio: curves in a local dashboard, kept on this machine. Needs `pip install 'reelign[trackio]'`.

Look at it with `trackio show`. A run that is taken up again goes on under its name.
"""

from reelign.events import About, Event
from reelign.parts import PartConfig
from reelign.sinks import _curves, _extra


class Config(PartConfig):
    """Where its curves are filed."""

    name: str = "trackio"
    project: str = "reelign"
    """Runs of one project are shown together."""


class Tracker:
    """Owns one run of a project."""

    def __init__(self, config: Config, run: About) -> None:
        name = f"{run.name}-{run.id[:8]}"
        self._run = _extra.bring("trackio").init(
            project=config.project, name=name, config=dict(run.config), resume="allow", embed=False
        )

    def send(self, event: Event) -> None:
        """Add points to the curves."""
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
    _extra.need("trackio")


def build(config: Config, run: About) -> Tracker:
    """Begin a run of the project, or go on with it."""
    return Tracker(config, run)
