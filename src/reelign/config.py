"""Recipes: YAML that says only what differs from the defaults, overrides, and where each value came from.

Precedence: defaults < recipe < overrides (`stages.1.method.clip=2e-4`). There are no environment variables.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from reelign.errors import BadConfig
from reelign.parts import Kind, NestedErrors, PartConfig, configure

Tree = dict[str, Any]
Schema = TypeVar("Schema", bound=BaseModel)


def read(path: Path) -> Tree:
    """Read a recipe file into a plain tree.

    Raises:
        BadConfig: there is no such file, it is not YAML, or it is not a mapping.
    """
    if not path.is_file():
        raise BadConfig(f"there is no recipe at {str(path)!r}; give the path of a YAML file such as recipes/demo.yaml.")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfig(f"{str(path)!r} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(tree, dict):
        raise BadConfig(
            f"{str(path)!r} holds {type(tree).__name__}, but a recipe is a mapping with the keys run, model and stages."
        )
    return tree


def override(tree: Tree, assignments: Sequence[str]) -> Tree:
    """Apply `a.b.0.c=value` assignments to a copy of a tree; values are read as YAML.

    Raises:
        BadConfig: an assignment without `=`, or a path through something that is neither a mapping nor a list.
    """
    result = deepcopy(tree)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise BadConfig(f"--set takes key=value, as in stages.1.method.clip=2e-4; given: {assignment!r}.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise BadConfig(f"--set {path}: {text!r} is not valid YAML: {' '.join(str(error).split())}.") from error
        keys = path.split(".")
        node: Any = result
        for depth, key in enumerate(keys):
            last = depth == len(keys) - 1
            where = ".".join(keys[: depth + 1])
            if isinstance(node, list):
                if not key.isdigit() or int(key) >= len(node):
                    raise BadConfig(f"--set {path}: {where!r} must be a number from 0 to {len(node) - 1}.")
                index: Any = int(key)
            elif isinstance(node, dict):
                index = key
            else:
                raise BadConfig(f"--set {path}: {'.'.join(keys[:depth])!r} is a plain value and has no {key!r} in it.")
            if last:
                node[index] = value
            else:
                child = node.setdefault(index, {}) if isinstance(node, dict) else node[index]
                if isinstance(child, str):
                    child = node[index] = {"name": child}  # a part given by its bare name
                node = child
    return result


def validate(schema: type[Schema], tree: Tree) -> Schema:
    """Turn a tree into a typed, frozen config.

    Raises:
        BadConfig: one sentence for the first problem, with its full path; an unknown key also gets the nearest known.
    """
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise BadConfig(_sentence(error, "", schema)) from error


def part(kind: Kind, value: object) -> PartConfig:
    """The typed config of one part outside a recipe, such as a reward named on the command line.

    Raises:
        BadConfig: one sentence, as from `validate`.
    """
    try:
        return configure(kind, value)
    except NestedErrors as error:
        raise BadConfig(_sentence(error.error, "", error.schema)) from error


def _sentence(error: ValidationError, prefix: str, schema: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    path = ".".join([p for p in (prefix, *location) if p])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, NestedErrors):
        return _sentence(cause.error, path, cause.schema)
    if first["type"] == "extra_forbidden":
        known = _known(schema, location[:-1])
        near = get_close_matches(location[-1], known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{path}: there is no such key.{hint} Known here: {', '.join(known)}."
    given = first.get("input")
    shown = "" if isinstance(given, Mapping | list | BaseModel) else f" (given: {given!r})"
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {message[0].lower()}{message[1:]}{shown}."


def _known(schema: type[BaseModel], location: Sequence[str]) -> tuple[str, ...]:
    """Field names of the model at a location inside a schema."""
    model: type[BaseModel] | None = schema
    for key in location:
        if model is not None and not key.isdigit():
            model = _model_in(model.model_fields[key].annotation)
    return tuple(model.model_fields) if model else ()


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation such as `Gate | None` or `tuple[Reward, ...]` is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for inner in get_args(annotation) if (model := _model_in(inner))), None)


def dump(config: BaseModel) -> Tree:
    """A typed config as plain JSON values."""
    return config.model_dump(mode="json")


def digest(config: BaseModel) -> str:
    """Twelve hex digits that change whenever any value of the config changes."""
    return hashlib.sha256(json.dumps(dump(config), sort_keys=True).encode()).hexdigest()[:12]


def explain(config: BaseModel, recipe: Tree, assignments: Sequence[str]) -> list[tuple[str, Any, str]]:
    """Every value of a config with its origin: rows (path, value, "default" | "recipe" | "--set")."""
    assigned = {a.partition("=")[0] for a in assignments}
    rows: list[tuple[str, Any, str]] = []

    def walk(value: Any, source: Any, path: str) -> None:
        if isinstance(value, dict) and isinstance(source, str):
            source = {"name": source}  # a part given by its bare name
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(
                    inner, source.get(key, _ABSENT) if isinstance(source, dict) else _ABSENT, f"{path}.{key}".strip(".")
                )
        elif isinstance(value, list) and value:
            for i, inner in enumerate(value):
                given = source[i] if isinstance(source, list) and i < len(source) else _ABSENT
                walk(inner, given, f"{path}.{i}")
        else:
            by_hand = any(path == a or path.startswith(a + ".") for a in assigned)
            rows.append((path, value, "--set" if by_hand else "default" if source is _ABSENT else "recipe"))

    walk(dump(config), recipe, "")
    return rows


_ABSENT = object()

__all__ = ["PartConfig", "Tree", "digest", "dump", "explain", "override", "part", "read", "validate"]
