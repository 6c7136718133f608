"""Finding parts: a method, module, reward, metric, model, dataset ... is one file, and the file's name is its name.

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

Kind = Literal["method", "module", "backbone", "reward", "metric", "model", "dataset", "stage"]
PACKAGES: dict[Kind, str] = {
    "method": "reelign.methods",
    "module": "reelign.modules",
    "backbone": "reelign.backbones",
    "reward": "reelign.rewards",
    "metric": "reelign.metrics",
    "model": "reelign.models",
    "dataset": "reelign.datasets",
    "stage": "reelign.stages",
}


class Settings(BaseModel):
    """What every group of settings starts from: frozen, no unknown keys, no number that is infinite or none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PartConfig(Settings):
    """What every part's `Config` starts from: its settings have the part's name."""

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
    if "." in name or ":" in name:
        return _outside(kind, name)
    names = available(kind)
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownPart(f"no {kind} called {name!r}.{hint} Available: {', '.join(names)}.")
    return importlib.import_module(f"{PACKAGES[kind]}.{name}")


def _outside(kind: Kind, name: str) -> ModuleType:
    """A part's module from another package: `package.module`, or `package.module:function` to build it with."""
    path, _, function = name.partition(":")
    if not all(word.isidentifier() for word in path.split(".")):
        raise UnknownPart(f"no {kind} at {name!r}: write a module's path, as in my_lab.rewards.motion:build.")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise UnknownPart(f"no {kind} at {name!r}: {error}. Is its package installed, or on PYTHONPATH?") from error
    missing = [needed for needed in ("Config", function or "build") if not hasattr(module, needed)]
    if missing:
        raise UnknownPart(f"no {kind} at {name!r}: the module has no {' and no '.join(missing)}; a part has both.")
    return module


class NestedErrors(ValueError):
    """Validation errors of a part's own config, carried up so that the whole path can be named."""

    def __init__(self, error: ValidationError, schema: type[BaseModel]) -> None:
        """Keep pydantic's errors and the part's `Config`."""
        super().__init__(str(error))
        self.error, self.schema = error, schema


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
        raise NestedErrors(error, module.Config) from error


AnyMethod = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "method"))]
AnyBackbone = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "backbone"))]
AnyReward = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "reward"))]
AnyMetric = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "metric"))]
AnyModel = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "model"))]
AnyDataset = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "dataset"))]


def build(kind: Kind, config: PartConfig, *args: object) -> Any:
    """Build a configured part."""
    module = find(kind, config.name)
    return getattr(module, config.name.partition(":")[2] or "build")(config, *args)
