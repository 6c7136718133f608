"""Finding parts: by file name in this package, by dotted path outside."""

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from reelign import parts
from reelign.errors import BadConfig, UnknownPart

LINEAR = "tests.parts.linear_reward"
KINDS = get_args(parts.Kind)
ALL = [(kind, name) for kind in KINDS for name in parts.available(kind)]


def test_the_file_names_are_the_registry() -> None:
    assert set(KINDS) == set(parts.PACKAGES)
    assert {"dpo", "grpo", "sft"} <= set(parts.available("method"))
    assert {"gaussian", "wan"} <= set(parts.available("model"))
    assert {"collect", "evaluate", "offline", "online"} == set(parts.available("stage"))
    for kind, package in parts.PACKAGES.items():
        names = [m.name for m in pkgutil.iter_modules(importlib.import_module(package).__path__)]
        assert parts.available(kind) == tuple(sorted(n for n in names if not n.startswith("_")))


@pytest.mark.parametrize(("kind", "name"), ALL, ids=[f"{kind}-{name}" for kind, name in ALL])
def test_every_part_has_a_frozen_config_a_build_and_a_sentence_about_itself(kind: parts.Kind, name: str) -> None:
    module = parts.find(kind, name)
    assert issubclass(module.Config, parts.PartConfig)
    assert module.Config.model_config["frozen"]
    assert module.Config.model_config["extra"] == "forbid"
    assert module.Config.model_fields["name"].default == name
    assert callable(module.build)
    first = (module.__doc__ or "").strip().splitlines()[0]
    assert len(first) > 20
    for field, info in module.Config.model_fields.items():
        # Settings nested in a part are strict too.
        for inner in (info.annotation, *get_args(info.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not parts.PartConfig:
                assert inner.model_config.get("extra") == "forbid", f"{kind} {name}: {field}"


def test_a_bare_name_means_all_defaults() -> None:
    assert parts.configure("method", "sft") == parts.configure("method", {"name": "sft"})


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parts.configure("method", "sft").name = "other"


@pytest.mark.parametrize("name", [LINEAR, f"{LINEAR}:build", f"{LINEAR}:Linear"])
def test_an_outside_part_is_named_by_its_path(name: str) -> None:
    built = parts.build("reward", parts.configure("reward", {"name": name, "k": 3.0}))
    assert built.k == 3.0
    assert type(built).__module__ == LINEAR


def test_an_outside_module_without_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loose_reward.py").write_text(Path(f"{LINEAR.replace('.', '/')}.py").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    assert parts.build("reward", parts.configure("reward", "loose_reward:build")).k == 1.0
    del sys.modules["loose_reward"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("videoalgin", r"^no reward called 'videoalgin'\. .*Available: .*playground_motion"),
        ("playground_moton", r"Did you mean 'playground_motion'\?"),
        (
            "nobodys_lab.motion",
            r"^no reward at 'nobodys_lab\.motion': No module named 'nobodys_lab'\. Is its package installed, or on",
        ),
        (f"{LINEAR}:make", r"^no reward at '.*:make': the module has no make; a part has both\.$"),
        ("tests.parts.no_part", r"the module has no Config and no build"),
        (".linear", r"^no reward at '\.linear': write a module's path, as in my_lab\.rewards\.motion:build\.$"),
        ("a..b", r"write a module's path"),
        (":build", r"write a module's path"),
    ],
)
def test_a_part_that_is_not_there(name: str, sentence: str) -> None:
    with pytest.raises(UnknownPart, match=sentence):
        parts.find("reward", name)


@pytest.mark.parametrize("value", [3, None, [], {}, {"name": 3}, {"weight": 1.0}])
def test_a_part_without_a_name(value: object) -> None:
    with pytest.raises(BadConfig, match=r"^a reward needs a name, as in \{name: playground_attributes\}; given: "):
        parts.configure("reward", value)


def test_helpers_are_no_parts() -> None:
    with pytest.raises(UnknownPart, match=r"no dataset called '_clips'"):
        parts.find("dataset", "_clips")
