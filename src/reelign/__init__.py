"""Reelign realigns pretrained video generators: supervised shaping, reward-driven RL, preference refinement.

`docs/python.md` shows what follows here. A name is looked for once it is used, so that the import alone loads nothing.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"
_AT = {
    "load": "face.making",
    "sample": "face.making",
    "Shots": "face.shots",
    "score": "face.scoring",
    "Scores": "face.scoring",
    "align": "face.running",
    "best": "face.searching",
    "Run": "face.running",
    "Recipe": "driver.recipe",
    "Request": "batches",
    "Videos": "batches",
    "PartConfig": "settings",
    "Event": "events",
    "UserError": "errors",
}

if TYPE_CHECKING:
    from reelign.batches import Request as Request
    from reelign.batches import Videos as Videos
    from reelign.driver.recipe import Recipe as Recipe
    from reelign.errors import UserError as UserError
    from reelign.events import Event as Event
    from reelign.face.making import load as load
    from reelign.face.making import sample as sample
    from reelign.face.running import Run as Run
    from reelign.face.running import align as align
    from reelign.face.scoring import Scores as Scores
    from reelign.face.scoring import score as score
    from reelign.face.searching import best as best
    from reelign.face.shots import Shots as Shots
    from reelign.settings import PartConfig as PartConfig
else:
    __all__ = sorted((*_AT, "__version__"))

    def __getattr__(name: str) -> object:
        """A public name, from the file that it stands in."""
        if name not in _AT:
            raise AttributeError(f"module 'reelign' has no attribute {name!r}")
        return getattr(importlib.import_module(f"reelign.{_AT[name]}"), name)


def __dir__() -> list[str]:
    """Names to complete."""
    return sorted({*globals(), *_AT})
