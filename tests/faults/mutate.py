"""Mutants of texts, trees and bytes, each a function of a random generator alone."""

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e-40, 1e308, float("inf"), float("nan"),
    2**31, 2**63, 2**70, 10**30, 10**400,
    "", " ", "0", "1e-3", "no", "~", ".", "..", "../..", "/", "/etc", "/dev/zero", "/dev/full", "/proc/self/mem",
    "a/b", "a\\b", "C:\\x", "file://x", "http://localhost/x", "{run}", "{data}", "{0}", "%s", "$HOME", "~root", "-rf",
    "name", "base", "gaussian", "wan", "grpo", "sft", "dpo", "collect", "online", "offline", "evaluate", "diversity",
    "bpgo", "playground", "tests.parts.no_part", "tests.parts.linear_reward:build", "tests.parts.mean_level",
    "json:loads", "os.path:join", "a.b.c", ":", "a\nb", "a\u2028b", "a\0b", "\ufeffa", "caf\u00e9", "\U0001f600",
    "x" * 300, "x" * 20_000, "a:b: c", "- a", "{", "[1, 2", "'", '"',
    [], [None], [[]], [1] * 50, {}, {"name": "grpo"}, {"name": ""}, {"name": None}, {"a": {"b": {}}}, {"": 1}, {1: 2},
)  # fmt: skip
TOKENS = (
    ":", "- ", "{", "}", "[", "]", ",", "#", "\t", "\n", "\n\n", "  ", "&a ", "*a", "<<: *a", "? ", "|", ">", "%", "@",
    "`", "---", "...", "'", '"',
    "\\", "\0", "\ufeff", "\x85", "\u2028", "\x1b[2J", "=", "null", "~", "yes", ".inf", ".nan",
    "0x", "1_000", "1:30", "2001-99-99", "!!python/object:os.system ", "!!binary ", "!!set ", "!!timestamp ", "!!int ",
    "!!float ", "!!bool ", "!!omap ", "name: ", "stages: ", "run: ",
)  # fmt: skip


def tree(rng: random.Random, base: Any) -> Any:
    """One to three changes of a tree of mappings, lists and plain values."""
    result = copy.deepcopy(base)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(result))
        if not places:
            return result
        parent, key = rng.choice(places)
        rng.choice(TREE_EDITS)(rng, parent, key, places)
    return result


def _places(node: Any) -> list[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in items for place in ((node, key), *_places(value))]


def _replace(rng: random.Random, parent: Any, key: Any, places: Sequence[Any]) -> None:
    parent[key] = copy.deepcopy(rng.choice(VALUES))


def _remove(rng: random.Random, parent: Any, key: Any, places: Sequence[Any]) -> None:
    del parent[key]


def _exchange(rng: random.Random, parent: Any, key: Any, places: Sequence[Any]) -> None:
    other, at = rng.choice(places)
    parent[key] = copy.deepcopy(other[at])


def _rename(rng: random.Random, parent: Any, key: Any, places: Sequence[Any]) -> None:
    if isinstance(parent, dict):
        name = str(key)
        parent[rng.choice((name[:-1], f"{name}s", name.upper(), rng.choice(places)[1], ""))] = parent.pop(key)


def _repeat(rng: random.Random, parent: Any, key: Any, places: Sequence[Any]) -> None:
    value = parent[key]
    parent[key] = value * rng.choice((0, 2, 200)) if isinstance(value, list | str) else [copy.deepcopy(value)] * 2


def _wrap(rng: random.Random, parent: Any, key: Any, places: Sequence[Any]) -> None:
    parent[key] = rng.choice(([parent[key]], {"name": parent[key]}, {str(key): parent[key]}))


def _number(rng: random.Random, parent: Any, key: Any, places: Sequence[Any]) -> None:
    if isinstance(parent[key], int | float):
        parent[key] = rng.choice((-1, 0, 1e-9, 10**9, 0.5, 3)) * parent[key]
    else:
        _replace(rng, parent, key, places)


TREE_EDITS = (_replace, _replace, _replace, _number, _number, _remove, _exchange, _rename, _repeat, _wrap)


def text(rng: random.Random, base: str) -> str:
    """One to four changes of a text: of characters, tokens and lines."""
    result = base
    for _ in range(rng.choice((1, 1, 2, 4))):
        result = rng.choice(TEXT_EDITS)(rng, result)
    return result


def _span(rng: random.Random, size: int, longest: int) -> tuple[int, int]:
    start = rng.randrange(size + 1)
    return start, min(size, start + rng.randrange(1, longest + 1))


def _insert_token(rng: random.Random, given: str) -> str:
    at = rng.randrange(len(given) + 1)
    return given[:at] + rng.choice(TOKENS) + given[at:]


def _drop_span(rng: random.Random, given: str) -> str:
    start, end = _span(rng, len(given), 12)
    return given[:start] + given[end:]


def _double_span(rng: random.Random, given: str) -> str:
    start, end = _span(rng, len(given), 60)
    return given[:end] + given[start:end] * rng.choice((1, 1, 30)) + given[end:]


def _lines(change: Callable[[random.Random, list[str], int], None]) -> Callable[[random.Random, str], str]:
    def edit(rng: random.Random, given: str) -> str:
        lines = given.split("\n")
        change(rng, lines, rng.randrange(len(lines)))
        return "\n".join(lines)

    return edit


def _swap_lines(rng: random.Random, lines: list[str], at: int) -> None:
    other = rng.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def _value(rng: random.Random, lines: list[str], at: int) -> None:
    head, colon, _ = lines[at].partition(": ")
    lines[at] = f"{head}{colon}{rng.choice(VALUES)}"


TEXT_EDITS: tuple[Callable[[random.Random, str], str], ...] = (
    _insert_token, _insert_token, _drop_span, _double_span, _lines(_swap_lines), _lines(_value), _lines(_value),
    _lines(lambda rng, lines, at: lines.insert(at, lines[at])),
    _lines(lambda rng, lines, at: lines.__delitem__(at)),
    _lines(lambda rng, lines, at: lines.__setitem__(at, rng.choice((" ", "  ", "\t")) + lines[at])),
)  # fmt: skip


def data(rng: random.Random, base: bytes) -> bytes:
    """One to four changes of bytes: flipped, cut, moved, grown."""
    result = bytearray(base)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(BYTE_EDITS)(rng, result)
    return bytes(result)


def _flip(rng: random.Random, given: bytearray) -> None:
    if given:
        given[rng.randrange(len(given))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, given: bytearray) -> None:
    start, end = _span(rng, len(given), 8)
    given[start:end] = bytes(rng.choice((0, 255, rng.randrange(256))) for _ in range(end - start))


def _cut(rng: random.Random, given: bytearray) -> None:
    del given[rng.randrange(len(given) + 1) :]


def _drop(rng: random.Random, given: bytearray) -> None:
    start, end = _span(rng, len(given), 64)
    del given[start:end]


def _copy(rng: random.Random, given: bytearray) -> None:
    start, end = _span(rng, len(given), 256)
    at = rng.randrange(len(given) + 1)
    given[at:at] = given[start:end]


def _noise(rng: random.Random, given: bytearray) -> None:
    at = rng.randrange(len(given) + 1)
    given[at:at] = rng.randbytes(rng.choice((1, 2, 16, 1000)))


BYTE_EDITS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _flip,
    _flip,
    _set,
    _set,
    _cut,
    _drop,
    _copy,
    _noise,
)
