"""Progress on stderr: bars on a terminal, a plain line now and then elsewhere."""

from reelign.events import About
from reelign.parts import PartConfig
from reelign.progress import Bar


class Config(PartConfig):
    """Nothing to set. The command line has one of its own."""

    name: str = "console"


def build(config: Config, run: About) -> Bar:
    """One that is shown from now on."""
    return Bar().__enter__()
