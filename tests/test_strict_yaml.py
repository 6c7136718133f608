"""YAML as recipes are written in it: what it means, and what it must not be able to do."""

import math
import time
from typing import Any

import pytest

from reelign.errors import BadConfig
from reelign.strict_yaml import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("-.5", -0.5),
        ("1.", 1.0),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("-3", -3),
        ("True", True),
        ("yes", "yes"),
        ("off", "off"),
        ("2026-11-20", "2026-11-20"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("nan", "nan"),
        ("~", None),
        ("", None),
        ("null", None),
        ("'3'", "3"),
        ("!!str 3", "3"),
        ("!!float 3", 3.0),
        ('"x \\ud83d\\ude00"', "x \U0001f600"),
    ],
)
def test_a_plain_word_is_what_it_looks_like(text: str, value: object) -> None:
    found = parse(f"a: {text}", "here")["a"]
    assert (found, type(found)) == (value, type(value))


def test_what_is_no_number_is_no_number() -> None:
    assert math.isnan(parse("a: .nan", "here")["a"])


def test_json_is_read() -> None:
    assert parse('{"a": [1, 2.5, null, true, "x"], "b": {}}', "here") == {"a": [1, 2.5, None, True, "x"], "b": {}}


def test_keys_that_look_like_values_elsewhere_are_texts() -> None:
    assert parse("on: 1\nyes: 2\n'3': 4\n=: 5", "here") == {"on": 1, "yes": 2, "3": 4, "=": 5}


def test_anchors_and_merges_work() -> None:
    text = "base: &base {lr: 1, warmup: 2}\none: *base\ntwo: {<<: *base, lr: 3}\nthree: {<<: [*base, {more: 4}]}"
    base = {"lr": 1, "warmup": 2}
    assert parse(text, "here") == {"base": base, "one": base, "two": {**base, "lr": 3}, "three": {**base, "more": 4}}
    assert parse("b: {<<: &a {<<: {k: 1}, k: 2}}\nc: *a", "here") == {"b": {"k": 1}, "c": {"k": 2}}


def test_what_an_alias_stands_for_is_a_value_of_its_own() -> None:
    found = parse("a: &a {k: [1]}\nb: *a", "here")
    found["a"]["k"].append(2)
    assert found["b"] == {"k": [1]}


def _laughs(first: str, line: str) -> str:
    return first + "".join(line.format(i, i - 1) for i in range(1, 30))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3", r"^here, line 3: the key 'a' stands in line 1 already; keep one\.$"),
        ("run: {steps: 500, steps: 5}", r"line 1: the key 'steps' stands in line 1 already"),
        ("b: {<<: {a: 1}, <<: {b: 1}}", r"the key '<<' stands in line 1 already"),
        ("1: 2", r"line 1: the key '1' is no text; put it in quotes"),
        ("a:\n  ~: 2", r"line 2: the key '~' is no text"),
        ("? [a]\n: 2", r"the key \[\.\.\.\] is no text"),
        ("a: !!timestamp 2001-99-99", r"the tag 'timestamp' is not read"),
        ("a: !!binary xx", r"the tag 'binary' is not read"),
        ("a: !!set {x}", r"the tag 'set' is not read"),
        ("!!omap [a: 1]", r"the tag 'omap' is not read"),
        ("a: !own 3", r"the tag '!own' is not read"),
        ("a: !!python/name:os.system", r"the tag 'python/name:os\.system' is not read"),
        ("a: !!int x", r"'x' is no int"),
        ("a: !!float x", r"'x' is no float"),
        ("a: !!bool x", r"'x' is no bool"),
        ("a: " + "9" * 5000, r"'9{20,}\.\.\.9{20,}' is no int"),
        ("a: 0x" + "f" * 5000, r"is too large a whole number; at most 63 bits are read"),
        ("a: 9223372036854775808", r"'9223372036854775808' is too large a whole number"),
        ('a: "x \\ud83d"', r"'x \\ud83d' holds half a character \(a lone surrogate\)"),
        ('"\\ud83d": 1', r"holds half a character"),
        ("a: \ud83d", r"^here is not valid YAML: unacceptable character #xd83d"),
        ('a: "\\0"', r"holds a NUL character"),
        ("a: \0", r"^here is not valid YAML: unacceptable character #x0000"),
        ("&a [*a]", r"an alias stands inside what it names"),
        ("a: *nobody", r"found undefined alias 'nobody'"),
        ("a: " + "[" * 5000, r"more than 40 lists and mappings in each other"),
        ("? " * 900, r"more than 40 lists and mappings in each other"),
        ("a: 1\n---\nb: 2", r"line 2 is not valid YAML: expected a single document"),
        ("a:\n\tb: 1", r"line 2 is not valid YAML"),
        (
            _laughs("a0: &a0 [x]\n", "a{0}: &a{0} [*a{1}, *a{1}]\n"),
            r"more than 20,000 values, with all aliases written",
        ),
        (_laughs("a0: &a0 {k: 1}\n", "a{0}: &a{0} {{<<: [*a{1}, *a{1}]}}\n"), r"more than 20,000 values"),
        ("a: " + "x" * 300_000, r"^here has 300,003 characters; at most 262,144 are read"),
    ],
)
def test_what_means_something_else_than_it_shows_is_refused_in_a_sentence(text: str, sentence: str) -> None:
    began = time.process_time()
    with pytest.raises(BadConfig, match=sentence) as refusal:
        parse(text, "here")
    assert time.process_time() - began < 3
    assert len(str(refusal.value)) < 400
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    ["[" + "[]," * 6000 + "]", "- x\n" * 20_000, "a" + ":a" * 100_000, "&a " * 80_000, "'" * 200_000, "{" * 9999],
)
def test_no_text_of_the_size_of_a_recipe_takes_long(text: str) -> None:
    began = time.process_time()
    try:
        found: Any = parse(text, "here")
    except BadConfig as refusal:
        found = str(refusal)
    assert time.process_time() - began < 5
    assert found
