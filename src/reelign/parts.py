"""Finding parts: a method, reward, metric, model, dataset or stage is one file, and the file's name is its name.

A part's module has a `Config` (a subclass of `PartConfig`) and a `build`. `name: grpo` means `reelign.methods.grpo`;
`name: my_lab.rewards.motion` (any dotted path) means a module outside this package.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, ValidationError

from reelign.errors import BadConfig, UnknownPart

Kind = Literal["method", "reward", "metric", "model", "dataset", "stage"]
PACKAGES: dict[Kind, str] = {
    "method": "reelign.methods",
    "reward": "reelign.rewards",
    "metric": "reelign.metrics",
    "model": "reelign.models",
    "dataset": "reelign.datasets",
    "stage": "reelign.stages",
}


class PartConfig(BaseModel):
    """What every part's `Config` starts from: frozen, no unknown keys, and the part's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str


def available(kind: Kind) -> tuple[str, ...]:
    """Names of the parts of a kind that ship with Reelign, sorted."""
    folder = importlib.import_module(PACKAGES[kind])
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_")))


def find(kind: Kind, name: str) -> ModuleType:
    """The module of a part.

    Raises:
        UnknownPart: there is none of that name; the message suggests a near one and lists them all.
    """
    if "." in name:
        try:
            return importlib.import_module(name.partition(":")[0])
        except ModuleNotFoundError as error:
            raise UnknownPart(f"no {kind} at {name!r}: {error}. Is its package installed, or on PYTHONPATH?") from error
    names = available(kind)
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownPart(f"no {kind} called {name!r}.{hint} Available: {', '.join(names)}.")
    return importlib.import_module(f"{PACKAGES[kind]}.{name}")


class NestedErrors(ValueError):
    """Validation errors of a part's own config, carried up so that the whole path can be named."""

    def __init__(self, part: str, error: ValidationError, allowed: tuple[str, ...]) -> None:
        """Keep the part's name, pydantic's errors and the keys the part has."""
        super().__init__(str(error))
        self.part, self.error, self.allowed = part, error, allowed


def configure(kind: Kind, value: object) -> PartConfig:
    """Turn `{name: ..., ...}` into the typed config of that part; a bare name means all defaults."""
    if isinstance(value, PartConfig):
        return value
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise BadConfig(f"a {kind} needs a name, as in {{name: {available(kind)[0]}}}; given: {value!r}.")
    module = find(kind, value["name"])
    try:
        return module.Config.model_validate(dict(value))
    except ValidationError as error:
        raise NestedErrors(value["name"], error, tuple(module.Config.model_fields)) from error


AnyMethod = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "method"))]
AnyReward = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "reward"))]
AnyMetric = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "metric"))]
AnyModel = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "model"))]
AnyDataset = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "dataset"))]
AnyStage = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "stage"))]


def build(kind: Kind, config: PartConfig, *args: object) -> Any:  # noqa: ANN401 - the kind decides
    """Build a configured part."""
    module = find(kind, config.name)
    return getattr(module, config.name.partition(":")[2] or "build")(config, *args)
