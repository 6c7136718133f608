"""Recipes: YAML that says only what differs from the defaults, overrides, and where each value came from.

Precedence: defaults < recipe < overrides (`stages.1.method.clip=2e-4`). There are no environment variables.
"""

import stat
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from reelign import strict_yaml
from reelign.errors import BadConfig, UserError, cut, meant, reason, shown
from reelign.files import seal
from reelign.parts import Kind, NestedErrors, PartConfig, configure

Tree = dict[str, Any]
Schema = TypeVar("Schema", bound=BaseModel)
FORMER = {
    "lora": ("adapter", "adapter: {name: lora, rank: 32}, with what stood in lora beside the name"),
    "sampler": ("samplers", "samplers: [{steps: 16, guidance: 3.0}], a list, with what stood in sampler as its first"),
}
"""Keys of earlier versions: the key that took their place, and how it is written."""


def read(path: Path, keys: str = "run, model and stages") -> Tree:
    """Read a recipe file into a plain tree; `~` at the front of the path is the home folder.

    Args:
        path: the file.
        keys: what the sentence for something else says that it should hold.

    Raises:
        BadConfig: there is no such file, it cannot be read, it is not YAML (`strict_yaml`), or it is not a mapping.
    """
    tree = strict_yaml.parse(_text(path), shown(str(path)))
    if not isinstance(tree, dict):
        holds = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise BadConfig(f"{shown(str(path))} holds {holds}, but must be a mapping with the keys {keys}.")
    return tree


def _text(path: Path) -> str:
    name = shown(str(path))
    try:
        path = path.expanduser()
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise BadConfig(f"{name} is no regular file; give the path of a YAML file.")
        if status.st_size > 4 * strict_yaml.MOST_CHARACTERS:  # four bytes a character at most
            raise BadConfig(
                f"{name} has {status.st_size:,} bytes, too many for a recipe; give the path of a YAML file."
            )
        return path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadConfig(f"there is no recipe at {name}; give the path of a YAML file.") from error
    except UnicodeDecodeError as error:
        raise BadConfig(f"{name} is not valid YAML: byte {error.start} is no UTF-8; save it as UTF-8.") from error
    except (OSError, ValueError, RuntimeError) as error:  # no right to read it, too long a name, no home folder
        if isinstance(error, UserError):
            raise
        raise BadConfig(f"the recipe {name} cannot be read ({reason(error)}); give the path of a YAML file.") from error


def override(tree: Tree, assignments: Sequence[str]) -> Tree:
    """Apply `a.b.0.c=value` assignments to a copy of a tree; values are read as YAML.

    Raises:
        BadConfig: an assignment without `=`, a value that is no YAML, or a path through something that is neither a
            mapping nor a list.
    """
    values: Tree = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise BadConfig(f"--set takes key=value, as in stages.1.method.clip=2e-4; given: {shown(assignment)}.")
        values.pop(path, None)  # the last word on a path counts, also in the order
        values[path] = strict_yaml.parse(text, f"--set {cut(path, 100)}")
    return assign(tree, values)


def assign(tree: Tree, values: Mapping[str, Any]) -> Tree:
    """A copy of a tree with values at paths such as `stages.1.method.clip`, one after the other.

    Raises:
        BadConfig: a path through something that is neither a mapping nor a list, or one that no setting can have.
    """
    result = deepcopy(tree)
    for path, value in values.items():
        where = f"--set {cut(path, 100)}"
        keys = path.split(".")
        if len(keys) > strict_yaml.DEEPEST or not path.isprintable():
            raise BadConfig(f"{where}: no setting is called that; `reelign config` lists them all.")
        _assign(result, keys, value, where)
    return result


def _assign(node: Any, keys: Sequence[str], value: Any, where: str) -> None:
    """Set what stands at the end of a path of keys, making mappings where there is nothing yet."""
    for depth, key in enumerate(keys):
        here = ".".join(keys[: depth + 1])
        index: Any = key
        if isinstance(node, list):
            if not (key.isdecimal() and len(key) < 6 and int(key) < len(node)):
                allowed = f"a number from 0 to {len(node) - 1}" if node else "nothing, for the list is empty"
                raise BadConfig(f"{where}: {shown(here)} must be {allowed}.")
            index = int(key)
        elif not isinstance(node, dict):
            before = ".".join(keys[:depth])
            raise BadConfig(f"{where}: {shown(before)} is a plain value and has no {shown(key)} in it.")
        if depth == len(keys) - 1:
            node[index] = value
            return
        child = node.get(index) if isinstance(node, dict) else node[index]
        if child is None:
            child = node[index] = {}
        elif isinstance(child, str):
            child = node[index] = {"name": child}  # a part given by its bare name
        node = child


def validate(schema: type[Schema], tree: Tree) -> Schema:
    """Turn a tree into a typed, frozen config.

    Raises:
        BadConfig: one sentence for the first problem, with its full path; an unknown key also gets the nearest known.
        UnknownPart: a name that no part has, with the path where it stands.
    """
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise _refusal(error, "", schema, tree) from error


def part(kind: Kind, value: object) -> PartConfig:
    """The typed config of one part outside a recipe, such as a reward named on the command line.

    Raises:
        BadConfig: one sentence, as from `validate`.
        UnknownPart: a name that no part has.
    """
    try:
        return configure(kind, value)
    except NestedErrors as error:
        raise _refusal(error.error, "", error.schema, error.given) from error


def unknown_key(path: str, key: str, known: Sequence[str]) -> BadConfig:
    """The refusal of a key that means nothing at its place, with the nearest one that does, or its new form."""
    if key in FORMER and FORMER[key][0] in known:
        return BadConfig(f"{path}: there is no such key any more; write {FORMER[key][1]}.")
    return BadConfig(f"{path}: there is no such key{meant(key, known)}; known here: {', '.join(known)}.")


def _refusal(error: ValidationError, prefix: str, schema: type[BaseModel], tree: object) -> UserError:
    """Pydantic's first problem as one of ours; what it says of the same place too, where several forms are allowed."""
    errors = error.errors(include_url=False)
    first, location = errors[0], _location(errors[0], schema, tree)
    path = ".".join(p for p in (prefix, *(cut(str(step), 60) for step in location)) if p)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, NestedErrors):
        return _refusal(cause.error, path, cause.schema, cause.given)
    if isinstance(cause, UserError):
        return type(cause)(f"{path}: {cause}" if path else str(cause))
    if first["type"] == "extra_forbidden":
        return unknown_key(path, str(location[-1]), _known(schema, location[:-1]))
    same = [each for each in errors if _location(each, schema, tree) == location]
    messages = dict.fromkeys(
        _DUE.get(each["type"], each["msg"].removeprefix("Value error, ").rstrip(".")) for each in same
    )
    message = " or ".join(f"{m[0].lower()}{m[1:]}" if m else "not allowed" for m in list(messages)[:3])
    given = first.get("input")
    said = "" if isinstance(given, Mapping | list | BaseModel) else f" (given: {shown(given)})"
    return BadConfig(f"{path}: {cut(message, 400)}{said}." if path else f"{cut(message, 400)}{said}.")


def _location(error: Any, schema: type[BaseModel], tree: object) -> list[str | int]:
    """Where a problem is: pydantic's location without the names that it gives to the forms of a union."""
    found: list[str | int] = []
    node: Any = tree
    for number, step in enumerate(error["loc"], start=1):
        there = isinstance(node, Mapping) and step in node
        absent = error["type"] == "missing" and number == len(error["loc"])
        if isinstance(step, int) or there or absent or step in _known(schema, found):
            found.append(step)
            listed = isinstance(node, list | tuple) and isinstance(step, int) and step < len(node)
            node = node[step] if there or listed else None
    return found


def _known(schema: type[BaseModel], location: Sequence[str | int]) -> tuple[str, ...]:
    """Field names of the model at a location inside a schema; none where there is no model."""
    model: type[BaseModel] | None = schema
    for key in location:
        if model is not None and isinstance(key, str):
            field = model.model_fields.get(key)
            model = _model_in(field.annotation) if field else None
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
    return seal(dump(config))[:12]


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
_DUE = {"model_type": "must be a mapping of settings", "tuple_type": "must be a list"}
"""Problems that pydantic names in Python's words."""
