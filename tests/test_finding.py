"""Whether a module is there is told without importing it, and never of one that is."""

import importlib
import sys
from pathlib import Path

import pytest

from reelign import finding


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path, whose modules say so when they are imported."""
    (tmp_path / "a_lab" / "deep").mkdir(parents=True)
    for name in ("a_lab/__init__.py", "a_lab/rewards.py", "a_lab/deep/__init__.py", "a_lab/deep/motion.py", "loose.py"):
        (tmp_path / name).write_text("raise SystemExit('imported')\n")
    (tmp_path / "plain" / "inside").mkdir(parents=True)
    (tmp_path / "plain" / "inside" / "part.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "lost"),
    [
        ("a_lab", ""),
        ("a_lab.rewards", ""),
        ("a_lab.deep.motion", ""),
        ("plain.inside.part", ""),  # folders without __init__.py are packages too
        ("loose", ""),
        ("a_lib.rewards", "a_lib"),
        ("a_lab.reward", "a_lab.reward"),
        ("a_lab.deep.motions", "a_lab.deep.motions"),
        ("plain.outside.part", "plain.outside"),
        ("loose.inside", "loose.inside"),
        ("json", ""),
        ("json.decoder", ""),
        ("json.decoders", "json.decoders"),
        ("reelign.rewards.playground_motion", ""),
    ],
)
def test_the_first_module_that_is_nowhere_is_named(lab: Path, path: str, lost: str) -> None:
    assert finding.lost(path) == lost
    assert not {"a_lab", "plain", "loose"} & sys.modules.keys()


def test_a_package_that_makes_its_modules_is_let_pass(lab: Path) -> None:
    (lab / "maker").mkdir()
    (lab / "maker" / "__init__.py").write_text(
        "import sys, types\nsys.modules['maker.made'] = types.ModuleType('made')\n"
    )
    (lab / "extended").mkdir()
    (lab / "extended" / "__init__.py").write_text("__path__.append('/elsewhere')\n")
    importlib.invalidate_caches()
    assert finding.lost("maker.made") == finding.lost("extended.elsewhere") == ""


def test_what_is_imported_is_there_wherever_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_by_hand", type(sys)("made_by_hand"))
    assert finding.lost("made_by_hand") == ""
    assert finding.lost("made_by_hand.more") == "made_by_hand.more"
