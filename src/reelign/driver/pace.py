"""When a run is judged on its way, and when it ends."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from reelign.driver.recipe import Recipe
from reelign.driver.run_folder import ON_THE_WAY
from reelign.events import Event


@dataclass(frozen=True, slots=True)
class Look:
    """An evaluation to make."""

    label: str
    """The path of its file below evaluations/, without its ending."""
    whole: bool = False
    """Whether it is made under all samplers and keeps videos for the report; else under the main one only."""


@runtime_checkable
class Pace(Protocol):
    """Decides after what has happened; unlike a sink it may end the run, by raising too."""

    keeps: bool
    """Whether checkpoints and the final model are written."""

    def look(self, event: Event) -> Look | None:
        """The evaluation to make now of the weights that the stage would leave.

        Asked when the run begins (a phase of "base"), after each step, and once a stage has failed (a phase "failed").
        """
        ...

    def over(self, event: Event) -> bool:
        """Whether the run ends here, without leaving the stage; told of each step and each evaluation within it."""
        ...


class AsAsked:
    """As the recipe says, to its end."""

    keeps = True

    def __init__(self, recipe: Recipe) -> None:
        self._config = recipe.evaluate

    def look(self, event: Event) -> Look | None:
        """The base, and with `evaluate.every` every so many steps; the end too where the best of all is wanted."""
        config = self._config
        if config is None:
            return None
        if event.stage == "base":
            return Look("base", whole=True)
        last = event.step == event.of
        if (
            event.kind != "step"
            or not config.every
            or (last and not config.best)
            or (event.step % config.every and not last)
        ):
            return None
        return Look(f"{ON_THE_WAY}/{event.stage}@{event.step}")

    def over(self, event: Event) -> bool:
        """Never before its end."""
        return False
