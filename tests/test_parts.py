"""Finding parts: by file name in this package, by dotted path outside."""

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
from pydantic import BaseModel, ValidationError

from reelign import config as configs
from reelign import parts, protocols
from reelign.engines import slots
from reelign.errors import BadConfig, BadData, UnknownPart
from reelign.events import Sink
from reelign.stage import Stage

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
    assert callable(parts.code(kind, name)[1])
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
        ("videoalgin", r"^no reward called 'videoalgin'; available: .*playground_motion"),
        ("playground_moton", r"did you mean 'playground_motion'\?"),
        (
            "nobodys_lab.motion",
            r"^no reward at 'nobodys_lab\.motion': there is no module 'nobodys_lab'; install its package, or put ",
        ),
        (f"{LINEAR}:make", r"^no reward at '.*:make': the module has no make; a part has both\.$"),
        ("tests.parts.no_part", r"the module has no Config and no build"),
        (".linear", r"^no reward at '\.linear': write a module's path, as in my_lab\.rewards\.motion:build\.$"),
        ("a..b", r"write a module's path"),
        (":build", r"write a module's path"),
        ("diversity", r"^no reward called 'diversity': that is a metric\.$"),
        (
            "tests.nowhere.motion",
            r"^no reward at 'tests\.nowhere\.motion': there is no module 'tests\.nowhere'; install ",
        ),
    ],
)
def test_a_part_that_is_not_there(name: str, sentence: str) -> None:
    with pytest.raises(UnknownPart, match=sentence):
        parts.find("reward", name)


Write = Callable[[str], str]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """`outside(source)`: the dotted name of a module of that source, new each time."""
    folder = tmp_path / "lab"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def write(source: str) -> str:
        names.append(f"lab.part_{len(names)}")
        (folder / f"part_{len(names) - 1}.py").write_text(source)
        importlib.invalidate_caches()
        return names[-1]

    yield write
    for name in [n for n in sys.modules if n == "lab" or n.startswith("lab.")]:
        del sys.modules[name]


CONFIG = "from reelign.parts import PartConfig\nclass Config(PartConfig):\n    k: float = 1.0\n"


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("def build(:\n", r"SyntaxError: invalid syntax \('.*part_0\.py', line 1\)\.$"),
        ("\nfrom json import nothing\n", r"ImportError: cannot import name 'nothing' .*\('.*part_0\.py', line 2\)\.$"),
        ("import no_such_thing\n", r"ModuleNotFoundError: No module named 'no_such_thing' \('.*part_0\.py', line 1\)"),
        ("raise RuntimeError('no\\nGPU')\n", r"RuntimeError: no GPU \('.*part_0\.py', line 1\)\.$"),
        ("import sys\nsys.exit(0)\n", r"SystemExit: 0 \('.*part_0\.py', line 2\)\.$"),
        ("class Odd(Exception):\n    def __str__(self):\n        return 1 / 0\nraise Odd\n", r"Odd: .* line 4\)"),
        ("raise KeyError('x' * 9999)\n", r"KeyError: 'xxx.* line 1\)\.$"),
        ("import json\njson.loads('{')\n", r"JSONDecodeError: .* \('.*part_0\.py', line 2\)\.$"),
    ],
)
def test_an_outside_part_that_does_not_import_is_named_with_what_it_raised_and_where(
    outside: Write, source: str, sentence: str
) -> None:
    with pytest.raises(UnknownPart, match=rf"^the reward 'lab\.part_0' could not be imported: .*{sentence}") as refusal:
        parts.find("reward", outside(source))
    assert len(str(refusal.value)) < 600
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("class Config: pass\ndef build(config): ...\n", r"its Config is no subclass of reelign\.parts\.PartConfig\.$"),
        ("Config = 3\nbuild = 4\n", r"its Config is no subclass of reelign\.parts\.PartConfig\.$"),
        ("def build(config): ...\n", r"the module has no Config; a part has both\.$"),
        (CONFIG, r"the module has no build; a part has both\.$"),
    ],
)
def test_a_module_that_is_no_part_says_what_it_lacks(outside: Write, source: str, sentence: str) -> None:
    with pytest.raises(UnknownPart, match=rf"^no reward at 'lab\.part_0': {sentence}"):
        parts.configure("reward", outside(source))


def test_a_config_that_fails_by_itself_is_named(outside: Write) -> None:
    source = (
        f"{CONFIG}from pydantic import field_validator\nclass Config(Config):\n    @field_validator('k')\n"
        "    @classmethod\n    def _look(cls, k):\n        return {}[k]\ndef build(config): ...\n"
    )
    with pytest.raises(
        BadConfig, match=r"^the Config of the reward 'lab.part_0' failed: KeyError: 2\.0 \(.*line 9\)\.$"
    ):
        parts.configure("reward", {"name": outside(source), "k": 2.0})


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            "raise FileNotFoundError(2, 'no weights', 'judge.safetensors')",
            r"could not be built: FileNotFoundError: .*line 5",
        ),
        ("import sys; sys.exit('bye')", r"could not be built: SystemExit: bye \(.*line 5\)\.$"),
        ("raise MemoryError", r"could not be built: MemoryError \(.*line 5\)\.$"),
        (
            "return None",
            r"is no dataset: what it builds, a NoneType, has no prompts, all_prompts, clips, pairs\.$",
        ),
    ],
)
def test_an_outside_part_that_cannot_be_built_is_named(outside: Write, body: str, sentence: str) -> None:
    config = parts.configure("dataset", outside(f"{CONFIG}def build(config):\n    {body}\n"))
    with pytest.raises(BadConfig, match=sentence):
        parts.build("dataset", config)


def test_what_a_part_refuses_in_its_own_words_stays(outside: Write) -> None:
    source = f"{CONFIG}from reelign.errors import BadData\ndef build(config):\n    raise BadData('no judge here')\n"
    with pytest.raises(BadData, match=r"^no judge here$"):
        parts.build("reward", parts.configure("reward", outside(source)))


@pytest.mark.parametrize(
    ("kind", "name", "other"),
    [("reward", "reelign.models.wan", "model"), ("metric", "reelign.rewards.degraded:build", "reward")],
)
def test_a_part_of_ours_of_another_kind_is_told_without_importing_it(kind: Any, name: str, other: str) -> None:
    with pytest.raises(UnknownPart, match=rf"^no {kind} at '{name}': that is a {other}\.$"):
        parts.find(kind, name)


def test_what_tells_a_parts_kind_is_in_its_protocol() -> None:
    interfaces = {
        "method": protocols.Method,
        "reward": protocols.Reward,
        "metric": protocols.Metric,
        "model": protocols.VideoModel,
        "dataset": protocols.Dataset,
        "stage": Stage,
        "module": slots.Slots,
        "sink": Sink,
    }
    for kind, interface in interfaces.items():
        assert all(hasattr(interface, n) or n in interface.__annotations__ for n in parts.HAS[kind]), kind


def test_outside_parts_are_refused_before_their_code_runs_where_they_are_not_wanted(
    outside: Write, tmp_path: Path
) -> None:
    name = outside(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{CONFIG}def build(config): ...\n")
    parts.refuse_outside(True)
    try:
        for value in (name, {"name": f"{name}:build"}, {"name": "degraded", "of": name}):
            with pytest.raises(UnknownPart, match=r"is code from outside Reelign, which --no-outside-parts refuses"):
                configs.part("reward", value)
        assert parts.configure("reward", "degraded").name == "degraded"
    finally:
        parts.refuse_outside(False)
    assert not (tmp_path / "ran").exists()
    parts.find("reward", name)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [3, None, [], {}, {"name": 3}, {"weight": 1.0}])
def test_a_part_without_a_name(value: object) -> None:
    with pytest.raises(BadConfig, match=r"^a reward needs a name, as in \{name: steady_motion\}; given: "):
        parts.configure("reward", value)


def test_helpers_are_no_parts() -> None:
    with pytest.raises(UnknownPart, match=r"no dataset called '_clips'"):
        parts.find("dataset", "_clips")


class Doubled(parts.PartConfig):
    """A reward in one class."""

    scores: ClassVar = {"doubled": (0.0, 2.0)}
    version: ClassVar = "1"
    by: float = 2.0

    def build(self) -> Any:
        return lambda videos, prompts: self.by


class Unbuilt(parts.PartConfig):
    """Settings of no part."""


def test_a_part_may_be_one_class() -> None:
    config = parts.configure("reward", {"name": f"{__name__}:Doubled", "by": 3.0})
    assert isinstance(config, Doubled)
    assert parts.build("reward", config)(None, ()) == 3.0
    assert parts.code("reward", config.name)[1] is Doubled.build


def test_a_class_that_builds_nothing_is_no_part() -> None:
    with pytest.raises(UnknownPart, match="the class has no build; give it that method"):
        parts.configure("reward", f"{__name__}:Unbuilt")
    with pytest.raises(UnknownPart, match="the class has no fill; give it that method"):
        parts.configure("module", f"{__name__}:Doubled")
