"""What parts' files say of themselves, read without running them, is what pydantic knows after running them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from reelign import parts, source, strict_yaml
from reelign.bakeoff.spec import Spec
from reelign.driver import Recipe
from reelign.errors import BadConfig, UnknownPart

ALL = [(kind, name) for kind in get_args(parts.Kind) for name in parts.available(kind)]
GROUPS = [("reelign.driver.recipe", "Recipe", Recipe), ("reelign.bakeoff.spec", "Spec", Spec)]


def _model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not parts.PartConfig:
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model(inner))), None)


def _written(item: Any) -> Any:
    """One of a default's list as a recipe writes it."""
    return item.model_dump(exclude_unset=True) if isinstance(item, BaseModel) else item


def _agree(read: tuple[source.Setting, ...], known: type[BaseModel]) -> None:
    assert [each.name for each in read] == [
        name for name in known.model_fields if name != "name" or any(each.name == "name" for each in read)
    ]
    for each in read:
        field = known.model_fields[each.name]
        assert (each.default is None) == field.is_required(), each.name
        default = field.get_default(call_default_factory=True)
        if default is not PydanticUndefined and not isinstance(default, BaseModel):
            said = strict_yaml.parse(each.default or "", each.name)
            assert said == ([_written(x) for x in default] if isinstance(default, tuple) else default), each.name
        for limit, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            bounds = [float(getattr(m, limit)) for m in field.metadata if hasattr(m, limit)]
            assert [float(number) for number in re.findall(rf", {sign} (\S+?)(?=,|$)", each.type)] == bounds, each.name
        inner = _model(field.annotation)
        if inner and each.inner and not each.kind:
            if isinstance(default, BaseModel):  # a group that changes some of its members' own defaults
                changed = {
                    name for name in inner.model_fields if getattr(default, name) != inner.model_fields[name].default
                }
                own = {s.name: s.default for s in source.settings(inner.__module__, inner.__name__)}
                assert {s.name for s in each.inner if s.default != own[s.name]} == changed
            else:
                _agree(each.inner, inner)


@pytest.mark.parametrize(("kind", "name"), ALL, ids=[f"{kind}-{name}" for kind, name in ALL])
def test_a_parts_settings_defaults_and_bounds_are_read_as_pydantic_has_them(kind: parts.Kind, name: str) -> None:
    module = parts.find(kind, name)
    page = source.page(kind, name)
    _agree(page.settings, module.Config) if page.settings else None
    assert {each.name for each in page.settings} == set(module.Config.model_fields) - {"name"}
    assert page.about == (module.__doc__ or "").strip()
    assert page.line.endswith(".") or page.line.endswith("?")


@pytest.mark.parametrize(("module", "group", "known"), GROUPS, ids=["recipe", "bakeoff"])
def test_a_recipes_own_settings_are_read_as_pydantic_has_them(module: str, group: str, known: type[BaseModel]) -> None:
    _agree(source.settings(module, group), known)


def test_every_setting_that_ships_says_what_it_means() -> None:
    groups = [(f"{kind} {name}", source.page(kind, name).settings) for kind, name in ALL]
    groups += [(group, source.settings(module, group)) for module, group, _ in GROUPS]
    silent = [f"{whose}: {each.name}" for whose, found in groups for each in source.flat(found) if not each.meaning]
    assert not silent


def test_what_names_a_part_is_known_by_its_kind() -> None:
    online = {each.name: each for each in source.page("stage", "online").settings}
    assert (online["method"].kind, online["method"].many) == ("method", False)
    assert (online["rewards"].kind, online["rewards"].many) == ("reward", True)
    assert [each.name for each in online["rewards"].inner] == ["weight"]
    grpo = {each.name: each for each in source.page("method", "grpo").settings}
    assert (grpo["modules"].kind, grpo["modules"].many) == ("module", True)
    (backbone,) = [each for each in source.page("module", "vipo").settings if each.name == "backbone"]
    assert (backbone.kind, backbone.default) == ("backbone", "gradients")


def test_settings_in_groups_are_listed_by_their_dotted_names() -> None:
    names = [each.name for each in source.flat(source.page("model", "wan").settings)]
    assert names[:3] == ["weights", "size", "size.frames"]
    assert "adapter" in names


def test_a_strangers_part_is_shown_without_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their").mkdir()
    (tmp_path / "their" / "__init__.py").write_text("raise SystemExit\n")
    (tmp_path / "their" / "judge.py").write_text(
        f'"""Is it good?"""\nopen({str(tmp_path / "ran")!r}, "w")\nfrom reelign.parts import PartConfig\n'
        'class Config(PartConfig):\n    """How good."""\n    k: float = 2.5\n    """In decibels."""\n'
    )
    page = source.page("reward", "their.judge:build")
    (setting,) = page.settings
    assert (page.about, page.purpose) == ("Is it good?", "How good.")
    assert (setting.name, setting.type, setting.default, setting.meaning) == ("k", "number", "2.5", "In decibels.")
    assert not (tmp_path / "ran").exists()
    assert "their" not in sys.modules


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            None,
            r"^no reward at 'their_broken\.judge': there is no module 'their_broken'; install its package, or put the ",
        ),
        ("def (", r"judge\.py' cannot be read as Python: 'invalid syntax"),
        ("x = 1", r"^no reward at 'their_broken\.judge': '.*judge\.py' has no Config; a part has one\.$"),
    ],
)
def test_a_file_that_cannot_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, sentence: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source._read.cache_clear()
    if text is not None:
        (tmp_path / "their_broken").mkdir()
        (tmp_path / "their_broken" / "judge.py").write_text(text)
    with pytest.raises(BadConfig if text else UnknownPart, match=sentence):
        source.page("reward", "their_broken.judge")


def test_an_unknown_part_has_no_page() -> None:
    with pytest.raises(UnknownPart, match=r"^no reward called 'degradd' \(did you mean 'degraded'\?\)"):
        source.page("reward", "degradd")


def test_reading_imports_neither_torch_nor_numpy() -> None:
    program = (
        "import sys\nfrom reelign import errors, files, config, parts, source, glance\n"
        "[source.page(k, n) for k in parts.PACKAGES for n in parts.available(k)]\n"
        "glance.recipe({'stages': [{'name': 'online', 'rewards': ['degraded']}]})\n"
        "print(*(n for n in ('torch', 'numpy', 'scipy', 'av', 'diffusers', 'jaxtyping') if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
