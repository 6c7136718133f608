"""What a checkpoint says beside the tensors: where the run stands, what it has written, what its bits hang on."""

from typing import Any

from pydantic import Field, ValidationError, model_validator

from reelign.driver.recipe import Recipe
from reelign.errors import BadCheckpoint
from reelign.parts import Settings
from reelign.runtime.journal import Seal


class World(Settings):
    """What lies outside of a run and decides its bits."""

    base: str = ""
    """Identity of the weights it started from; empty where the model's family gives none."""
    data: dict[str, dict[str, str | int]] = {}
    """Identity of each dataset, by its place in the recipe."""
    rewards: dict[str, str] = {}
    """Versions of the running stage's rewards."""
    metrics: dict[str, str] = {}
    """Versions of what measures in evaluations, by measure."""
    machine: dict[str, str] = {}
    """Versions and hardware: the promise of equal bits ends where they change."""


class State(Settings):
    """Where a run stands."""

    stage: int = Field(ge=0)
    """The running one; the number of stages once all are done."""
    next: int = Field(ge=0)
    """Its first step that is not done."""
    entering: str = "base"
    """Name of the checkpoint whose weights entered it."""
    updates: int = Field(default=0, ge=0)
    """Of its optimizer."""
    adapter_off: tuple[str, ...] = ()
    """Roles that are the network with its adapter switched off."""
    counts: dict[str, int] = {}
    wall_s: float = Field(default=0.0, ge=0)

    recipe: str = ""
    """Digest of the settings that decide what is computed."""
    world: World = World()
    accepted: tuple[str, ...] = ()
    """Changes of the world that were accepted within the running stage."""
    ledger: tuple[dict[str, Any], ...] = ()
    """The rows of the finished stages."""
    metrics: Seal = Seal()
    evaluations: dict[str, str] = {}
    """The sha256 of each evaluation's file, by label."""

    @model_validator(mode="after")
    def _a_row_a_stage(self) -> "State":
        if len(self.ledger) != self.stage:
            raise ValueError(f"{len(self.ledger)} rows of the ledger for {self.stage} finished stages")
        return self


def extended(recipe: Recipe, state: State) -> bool:
    """Whether all stages are done, but the last has more steps now."""
    return state.stage == len(recipe.stages) and recipe.stages[-1].extent > state.ledger[-1]["steps"]


def read(position: dict[str, Any], where: str) -> State:
    """The state in a checkpoint.

    Raises:
        BadCheckpoint: it is none.
    """
    try:
        return State.model_validate(position)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise BadCheckpoint(
            f"the checkpoint in {where!r} is damaged: its {key or 'position'} is wrong ({first['msg'].lower()}); "
            "restore it from a copy, or start a new run."
        ) from error
