"""YAML that means what it shows: no key twice, no tags, no dates, and never much larger in memory than on the page.

Plain words are read as YAML 1.2 does: `yes` and `2026-11-20` are texts, `2e-4` and `010` are numbers (of ten). Keys are
texts. Anchors, aliases and merges work within bounds.
"""

import re
from typing import Any

import yaml

from reelign.errors import BadConfig, cut, shown

MOST_CHARACTERS = 1 << 18
"""Of a text: fifty times the longest recipe that ships."""
MOST_VALUES = 20_000
"""With every alias written out."""
DEEPEST = 40
"""Levels of lists and mappings in each other."""

_TAG = "tag:yaml.org,2002:"
_KINDS = tuple(_TAG + kind for kind in ("null", "bool", "int", "float", "str", "seq", "map"))
_MERGE = _TAG + "merge"


def parse(text: str, where: str) -> Any:
    """The value that a YAML text describes.

    Args:
        text: the whole document.
        where: what sentences call it, such as a file's name.

    Raises:
        BadConfig: no valid YAML, or nothing that a recipe can mean: a key given twice, a key that is no text, a tag,
            half a character, aliases that blow up, hundreds of brackets.

    Example:
        >>> parse("run: {name: mine, seed: 3}", "here")
        {'run': {'name': 'mine', 'seed': 3}}
    """
    if len(text) > MOST_CHARACTERS:
        raise BadConfig(f"{where} has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read.")
    try:
        return _unshared(_Loader(text).get_single_data())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        if isinstance(error, _Refused):
            raise BadConfig(f"{where}{line}: {error.problem}.") from error
        told = ", ".join(part for part in (error.context, error.problem) if part)
        raise BadConfig(f"{where}{line} is not valid YAML: {cut(told, 200)}.") from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise BadConfig(f"{where} is not valid YAML: {cut(str(error), 200)}.") from error


def _unshared(value: Any) -> Any:
    """A copy in which what an alias stands for is a value of its own, so that changing one changes no other."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that is not read."""

    def __init__(self, problem: str, node: Any) -> None:
        super().__init__(problem=problem, problem_mark=node.start_mark)


def _int(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    digits = text.lstrip("+-")
    number = int(text, {"0x": 16, "0o": 8}.get(digits[:2], 10))
    if number.bit_length() > 63:
        raise _Refused(f"{shown(text)} is too large a whole number; at most 63 bits are read", node)
    return number


def _float(loader: Any, node: Any) -> float:
    return float(re.sub(r"\.(?=[in])", "", loader.construct_scalar(node).lower()))


def _bool(loader: Any, node: Any) -> bool:
    return {"true": True, "false": False}[loader.construct_scalar(node).lower()]


_PLAIN = {
    "null": (r"~|null|Null|NULL|", "~nN", yaml.SafeLoader.construct_yaml_null),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF", _bool),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789", _int),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
        _float,
    ),
    "merge": (r"<<", "<", None),
}
"""Plain words that are no texts: how they look, what they begin with, what builds them."""


class _Loader(yaml.SafeLoader):
    """Checks the whole tree of nodes before it builds anything, then builds JSON's kinds of values only."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    yaml_constructors = {kind: yaml.SafeLoader.yaml_constructors[kind] for kind in _KINDS}
    _level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._level += 1
        if self._level > DEEPEST:
            raise _Refused(f"more than {DEEPEST} lists and mappings in each other", self.peek_event())
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _check(node, {}, ())
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if node.tag not in _KINDS:
            raise _Refused(f"the tag {shown(node.tag.removeprefix(_TAG))} is not read; give a plain value", node)
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError) as error:  # `!!int x`, or a number of 5000 digits
            raise _Refused(f"{shown(node.value)} is no {node.tag.removeprefix(_TAG)}", node) from error

    def construct_scalar(self, node: Any) -> str:
        text = super().construct_scalar(node)
        try:
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16")  # "\ud83d\ude00" is one character
        except UnicodeDecodeError as error:
            raise _Refused(f"{shown(text)} holds half a character (a lone surrogate)", node) from error
        if "\0" in whole:
            raise _Refused(f"{shown(text)} holds a NUL character", node)
        return whole


for _kind, (_looks, _begins, _build) in _PLAIN.items():
    _Loader.add_implicit_resolver(
        _TAG + _kind, re.compile(f"^(?:{_looks})$"), ["", *_begins] if _kind == "null" else _begins
    )
    if _build:
        _Loader.add_constructor(_TAG + _kind, _build)


def _check(node: Any, known: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values a node stands for once its aliases are written out; looks at each node once.

    Raises:
        _Refused: too many, a node inside itself, a key that is no text or stands twice.
    """
    if id(node) in above:
        raise _Refused("an alias stands inside what it names", node)
    if id(node) in known:
        return known[id(node)]
    inner: list[Any] = []
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        _check_keys(node)
        inner = [each for pair in node.value for each in pair]
    total = 1 + sum(_check(each, known, (*above, id(node))) for each in inner)
    if total > MOST_VALUES:
        raise _Refused(f"more than {MOST_VALUES:,} values, with all aliases written out", node)
    known[id(node)] = total
    return total


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in (_TAG + "str", _MERGE):
            given = shown(key.value) if isinstance(key, yaml.ScalarNode) else "[...]"
            raise _Refused(f"the key {given} is no text; put it in quotes", key)
        if key.value in lines:
            raise _Refused(f"the key {shown(key.value)} stands in line {lines[key.value]} already; keep one", key)
        lines[key.value] = key.start_mark.line + 1
