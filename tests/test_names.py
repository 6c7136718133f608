"""What a recipe may call things that become files."""

from pathlib import Path
from typing import Any

import pytest
from tests.driver.toys import recipe_in, tree_of

from reelign import config as configs
from reelign import driver
from reelign.errors import BadConfig
from reelign.names import Inside, Label, Root, RunName, composed, same
from reelign.parts import Settings


class Names(Settings):
    run: RunName = "r"
    label: Label = ""
    inside: Inside = "pairs"
    root: Root = "runs"


def _refused(**given: str) -> str:
    with pytest.raises(BadConfig) as error:
        configs.validate(Names, given)
    return str(error.value)


@pytest.mark.parametrize("name", ["toy", "a.b_c-1", "_draft", "2024", "r" * 120])
def test_plain_names_are_runs(name: str) -> None:
    assert configs.validate(Names, {"run": name}).run == name


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "-x", "a/b", "a b", "a\n", "é", "~", "a\x00", "r" * 121])
def test_other_names_are_no_runs(name: str) -> None:
    assert "run: " in _refused(run=name)


@pytest.mark.parametrize("label", ["", "качество", "第一", "a b", "v1.2", "q" * 80])
def test_labels_are_of_any_script(label: str) -> None:
    assert configs.validate(Names, {"label": label}).label == label


@pytest.mark.parametrize(
    "label",
    ["a/b", "..", ".a", "\\", "a\u2028b", "a\u2029", "a\nb", "a\x85b", "\x7f", "a\ud83d", " a", "a ", "é" * 41, "/"],
)
def test_other_labels_are_refused(label: str) -> None:
    assert "label: " in _refused(label=label)


@pytest.mark.parametrize("path", ["pairs", "data/pairs", "second pairs", "finally", "пары", "a" * 120])
def test_paths_lead_into_the_run_folder(path: str) -> None:
    assert configs.validate(Names, {"inside": path}).inside == path


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "..", "../x", "a/../b", "a/..", "a/./b", "/etc", "a//b", "a/", "~", "~/x", "~root/x", "a\\b", "C:",
        "C:/x", "a\x00b", "a\nb", "a\u2028b", "a" * 121, "x/" + "é" * 61, ".hidden", "a/.pairs.tmp-01234567", "\ud83d",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_run_folder(path: str) -> None:
    assert "inside: " in _refused(inside=path)


@pytest.mark.parametrize(
    "path",
    [
        "config.json", "checkpoints", "evaluations/x", "samples", "final", "Final", "ledger.jsonl", "metrics.jsonl",
        ".lock", "report.html", "log.txt", "final.json", "metrics.aside-1.jsonl", "final.aside-2",
    ],
)  # fmt: skip
def test_what_the_run_keeps_for_itself_is_refused(path: str) -> None:
    assert "inside: " in _refused(inside=path)


@pytest.mark.parametrize("root", ["a\x00b", "x" * 300, "a/" * 2000, "~nobody-of-that-name/x", "a\ud83d"])
def test_roots_that_no_system_takes_are_refused(root: str) -> None:
    assert len(_refused(root=root)) < 5000


def test_the_home_folder_is_meant_by_its_sign(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert configs.validate(Names, {"root": "~/runs"}).root == f"{tmp_path}/runs"


def _collecting(*paths: str) -> list[dict[str, Any]]:
    reward, data = "tests.parts.linear_reward:build", "tests.parts.gaussian_data:build"
    return [{"name": "collect", "dataset": data, "rewards": [reward], "path": path} for path in paths]


@pytest.mark.parametrize("second", ["pairs", "PAIRS", "pairs/more"])
def test_two_stages_do_not_collect_into_one_folder(tmp_path: Path, second: str) -> None:
    with pytest.raises(BadConfig, match=r"^stages: 0 and 1 collect into folders that lie in one another, 'pairs'"):
        recipe_in(tmp_path, stages=_collecting("pairs", second))
    assert recipe_in(tmp_path, stages=_collecting("pairs", "pairs2"))


def test_labels_are_unique_where_a_file_system_ignores_case(tmp_path: Path) -> None:
    stages = [{**tree_of(tmp_path)["stages"][2], "label": label} for label in ("tune", "Tune", "Base")]
    assert driver.labels(recipe_in(tmp_path, stages=stages)) == ["tune", "Tune-2", "Base-2"]


def test_letters_are_one_whatever_their_unicode_form() -> None:
    apart = "Ba\u0308r"
    assert composed(apart) == composed("B\u00e4r") == "B\u00e4r"
    assert same(apart) == same("b\u00c4R")
