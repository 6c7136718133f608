"""Finding parts: a method, module, reward, metric, model, dataset ... is one file, and the file's name is its name.

A part's module has a `Config` (a subclass of `PartConfig`), which says what the part is (`declared`), and a `build`; a
module of methods has a `fill` in its place. `name: grpo` means `reelign.methods.grpo`;
`name: my_lab.rewards.motion` (any dotted path) means a module outside this package, whose code then runs: when it is
imported, configured, built and used. `refuse_outside(True)` rules that out for the process. A part can also be one
class, `__main__:Sharp`: a `PartConfig` with a method `build`, as it is typed in a notebook.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, SerializeAsAny, ValidationError

from reelign import finding
from reelign.errors import BadConfig, UnknownPart, UserError, meant, raised, shown
from reelign.settings import PartConfig
from reelign.settings import Settings as Settings

Kind = Literal["method", "module", "backbone", "reward", "metric", "model", "adapter", "dataset", "stage", "sink"]
PACKAGES: dict[Kind, str] = {kind: f"reelign.{kind}s" for kind in get_args(Kind)}
HAS: dict[Kind, tuple[str, ...]] = {
    "method": ("losses",),
    "module": ("select", "combine"),
    "backbone": ("__call__",),
    "reward": ("__call__",),
    "metric": ("__call__",),
    "model": ("geometry", "experts", "velocity", "decode", "export"),
    "adapter": ("form", "attach", "neutral", "off", "merged", "export"),
    "dataset": ("prompts", "all_prompts", "clips", "pairs"),
    "stage": ("steps", "note", "run"),
    "sink": ("send", "close"),
}
"""What tells that what a part's function gives is of its kind; see `protocols`."""

_outside_refused = False


def one(kind: str) -> str:
    """Such a part in a sentence, as in "an adapter"."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def available(kind: Kind) -> tuple[str, ...]:
    """Names of the parts of a kind that ship with Reelign, sorted."""
    folder = importlib.import_module(PACKAGES[kind])
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_")))


def refuse_outside(wish: bool) -> None:
    """Whether parts by dotted path are refused from now on, in this process, before anything of them is imported."""
    global _outside_refused
    _outside_refused = wish


def is_outside(name: str) -> bool:
    """Whether a name is a path to a module."""
    return "." in name or ":" in name


def refuse_unknown(kind: Kind, name: str) -> None:
    """Refuse, without importing anything, what can be told from a name.

    Raises:
        UnknownPart: there is none of that name (the message says which kind has it, or suggests a near one and lists
            them all), a dotted path where those are refused, no path at all, that of a part of ours of another kind,
            or one that leads to no module.
    """
    if is_outside(name):
        _refuse_path(kind, name)
        return
    names = available(kind)
    if name in names:
        return
    others = [other for other in PACKAGES if name in available(other)]
    if others:
        raise UnknownPart(f"no {kind} called {shown(name)}: that is {' and '.join(map(one, others))}.")
    raise UnknownPart(f"no {kind} called {shown(name)}{meant(name, names)}; available: {', '.join(names)}.")


def _refuse_path(kind: Kind, name: str) -> None:
    path, _, function = name.partition(":")
    if not all(word.isidentifier() for word in (*path.split("."), *([function] if ":" in name else []))):
        raise UnknownPart(f"no {kind} at {shown(name)}: write a module's path, as in my_lab.rewards.motion:build.")
    if _outside_refused:
        raise UnknownPart(
            f"the {kind} {shown(name)} is code from outside Reelign, which --no-outside-parts refuses; "
            "read that code, then leave the option out."
        )
    for other, package in PACKAGES.items():
        if other != kind and path.startswith(f"{package}."):
            raise UnknownPart(f"no {kind} at {shown(name)}: that is {one(other)}.")
    lost = finding.lost(path)
    if lost:
        raise _nowhere(kind, name, lost)


def _nowhere(kind: Kind, name: str, module: object) -> UnknownPart:
    return UnknownPart(
        f"no {kind} at {shown(name)}: there is no module {shown(module)}; install its package, or put the folder it is "
        "in on PYTHONPATH, as `export PYTHONPATH=$PWD` does with this one."
    )


def find(kind: Kind, name: str) -> ModuleType:
    """The module of a part.

    Raises:
        UnknownPart: see `refuse_unknown`; a module that is not there, does not import, or is no part.
    """
    refuse_unknown(kind, name)
    return _outside(kind, name) if is_outside(name) else importlib.import_module(f"{PACKAGES[kind]}.{name}")


def code(kind: Kind, name: str) -> tuple[ModuleType, Callable[..., Any]]:
    """A part's module, and the function in it that builds it.

    Raises:
        UnknownPart: see `find`.
    """
    module, _, function = _whole(kind, name)
    return module, function


def _whole(kind: Kind, name: str) -> tuple[ModuleType, type[PartConfig], Callable[..., Any]]:
    """A part's module, the class of its settings and what builds it; a name may lead to a class that is both."""
    module, (builder, called) = find(kind, name), _called(kind, name)
    own = getattr(module, called)
    return (module, own, getattr(own, builder)) if _is_config(own) else (module, module.Config, own)


def _called(kind: Kind, name: str) -> tuple[str, str]:
    """What builds a part of that kind, and what does so by this name."""
    builder = "fill" if kind == "module" else "build"
    return builder, name.partition(":")[2] or builder


def _is_config(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, PartConfig)


def _outside(kind: Kind, name: str) -> ModuleType:
    """A part's module from another package: `package.module`, or `package.module:function` to build it with."""
    path = name.partition(":")[0]
    try:
        module = importlib.import_module(path)
    except (Exception, SystemExit) as error:  # whatever stands in the file
        if isinstance(error, ModuleNotFoundError) and f"{path}.".startswith(f"{error.name}."):
            raise _nowhere(kind, name, error.name) from error
        raise UnknownPart(f"the {kind} {shown(name)} could not be imported: {raised(error)}.") from error
    builder, called = _called(kind, name)
    own = getattr(module, called, None)
    if _is_config(own):
        if not hasattr(own, builder):
            raise UnknownPart(
                f"no {kind} at {shown(name)}: the class has no {builder}; give it that method, to make the part."
            )
        return module
    missing = [needed for needed in ("Config", called) if not hasattr(module, needed)]
    if missing and path == "__main__":
        raise UnknownPart(
            f"no {kind} at {shown(name)}: this session has no class of that name; run the cell that defines it, or "
            "put it into a file."
        )
    if missing:
        raise UnknownPart(f"no {kind} at {shown(name)}: the module has no {' and no '.join(missing)}; a part has both.")
    if not _is_config(module.Config):
        raise UnknownPart(f"no {kind} at {shown(name)}: its Config is no subclass of reelign.parts.PartConfig.")
    return module


class NestedErrors(ValueError):
    """Validation errors of a part's own config, carried up so that the whole path can be named."""

    def __init__(self, error: ValidationError, schema: type[BaseModel], given: object) -> None:
        super().__init__(str(error))
        self.error, self.schema, self.given = error, schema, given


def configure(kind: Kind, value: object) -> PartConfig:
    """Turn `{name: ..., ...}` into the typed config of that part; a bare name means all defaults.

    Raises:
        BadConfig: no name, or the part's own Config failed.
        UnknownPart: see `find`.
        NestedErrors: settings that do not fit the part's Config.
    """
    if isinstance(value, PartConfig):
        return value
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise BadConfig(f"{one(kind)} needs a name, as in {{name: {available(kind)[-1]}}}; given: {shown(value)}.")
    name = value["name"]
    _, form, _ = _whole(kind, name)
    try:
        return form.model_validate(dict(value))
    except ValidationError as error:
        raise NestedErrors(error, form, value) from error
    except (Exception, SystemExit) as error:
        if isinstance(error, UserError) or not is_outside(name):
            raise
        raise BadConfig(f"the Config of the {kind} {shown(name)} failed: {raised(error)}.") from error


AnyMethod = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "method"))]
AnyBackbone = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "backbone"))]
AnyReward = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "reward"))]
AnyMetric = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "metric"))]
AnyModel = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "model"))]
AnyAdapter = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "adapter"))]
AnyDataset = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "dataset"))]
AnySink = Annotated[SerializeAsAny[PartConfig], BeforeValidator(partial(configure, "sink"))]


def build(kind: Kind, config: PartConfig, *args: object) -> Any:
    """Build a configured part, where it is used; what it is can be asked without (`declared`).

    Of a module it is what that makes of slots, for which nothing is loaded or opened.

    Raises:
        UserError: what the part refuses.
        BadConfig: a part from outside raised something else, or built what is none of its kind.
    """
    name = config.name
    _, function = code(kind, name)
    try:
        built = function(config, *args)
        missing = [needed for needed in HAS[kind] if not hasattr(built, needed)]
    except (Exception, SystemExit) as error:
        if isinstance(error, UserError) or not is_outside(name):
            raise
        raise BadConfig(f"the {kind} {shown(name)} could not be built: {raised(error)}.") from error
    if missing:
        raise BadConfig(
            f"{shown(name)} is no {kind}: what it builds, a {type(built).__name__}, has no {', '.join(missing)}."
        )
    return built
