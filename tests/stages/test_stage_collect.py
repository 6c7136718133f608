"""The collecting stage: what it writes is known for its own, and nobody else's files are touched."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.driver.toys import DATA, InChild, Watcher, die, go, interrupt, newest, recipe_in

from reelign import driver
from reelign.errors import BadData

Damage = Callable[[Path], object]


def _recipe(root: Path, path: str = "pairs", **run: Any) -> driver.Recipe:
    """Seven prompts in four steps, and a stage that learns from them."""
    collect = {
        "name": "collect", "dataset": DATA, "prompts": 7, "per_step": 2, "members": 2, "tie": 0.0, "path": path,
        "sampler": {"steps": 2}, "rewards": ["tests.parts.linear_reward:build"],
    }  # fmt: skip
    learn = {
        "name": "offline", "steps": 2, "batch": 3, "method": "dpo",
        "dataset": {"name": "pair_list", "path": f"{{run}}/{path}/pairs.jsonl"}, "learner": {"lr": 0.01},
    }  # fmt: skip
    model = {"name": "gaussian", "side": 16, "mean": 0.5, "var": 0.002}
    settings = [f"run.{key}={value}" for key, value in {"save_every": 1, **run}.items()]
    return recipe_in(root, "evaluate=null", *settings, stages=[collect, learn], model=model)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _stop(root: Path, moment: str, **run: Any) -> Path:
    with pytest.raises(driver.Interrupted):
        go(_recipe(root, **run), Watcher(moment, interrupt))
    return root / "toy"


def _resume(root: Path) -> Path:
    return go(_recipe(root), Watcher(), resume=True)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an uninterrupted run's folder of pairs."""
    return _files(go(_recipe(tmp_path_factory.mktemp("collected")), Watcher()) / "pairs")


@pytest.mark.parametrize("moment", ["collect 1", "collect 3", "dpo 1"])
def test_an_interrupted_collection_goes_on_to_the_same_files(
    collected: dict[str, bytes], tmp_path: Path, in_child: InChild, moment: str
) -> None:
    assert in_child(lambda: go(_recipe(tmp_path), Watcher(moment, die))) < 0
    again = _files(_resume(tmp_path) / "pairs")
    assert again.keys() == collected.keys()
    first = json.loads((tmp_path / "toy" / "config.json").read_text())["id"]
    assert json.loads(again.pop("collected.jsonl").split(b"\n")[0]) == {"run": first}
    assert again == {name: raw for name, raw in collected.items() if name != "collected.jsonl"}


def test_a_folder_of_others_is_refused_before_any_compute(tmp_path: Path) -> None:
    theirs = tmp_path / "toy" / "pairs"
    theirs.mkdir(parents=True)
    (theirs / "pairs.jsonl").write_text("judged by hand")
    watcher = Watcher()
    with pytest.raises(BadData, match=r"toy/pairs' was not written by this run and is not replaced; move it away or"):
        go(_recipe(tmp_path), watcher)
    assert not watcher.events
    assert _files(theirs) == {"pairs.jsonl": b"judged by hand"}
    # The name is free again, for other settings too.
    theirs.rename(tmp_path / "judged")
    assert go(_recipe(tmp_path, seed=7), watcher)


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "toy" / "pairs").mkdir(parents=True)
    assert (go(_recipe(tmp_path), Watcher()) / "pairs" / "pairs.jsonl").exists()


@pytest.mark.parametrize("inner", ["", "more/"])
def test_a_link_out_of_the_run_folder_is_refused(tmp_path: Path, inner: str) -> None:
    theirs = tmp_path / "theirs"
    (theirs / inner).mkdir(parents=True, exist_ok=True)
    (theirs / "precious.txt").write_text("mine")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "pairs").symlink_to(theirs)
    with pytest.raises(BadData, match="is or lies behind a link; move it away or choose another `path`"):
        go(_recipe(tmp_path, f"pairs/{inner}".rstrip("/")), Watcher())
    assert _files(theirs) == {"precious.txt": b"mine"}


def test_pairs_of_another_run_are_not_replaced(tmp_path: Path) -> None:
    other = go(_recipe(tmp_path / "other"), Watcher()) / "pairs"
    before = _files(other)
    (tmp_path / "toy").mkdir()
    other.rename(tmp_path / "toy" / "pairs")
    with pytest.raises(BadData, match="was not written by this run"):
        go(_recipe(tmp_path), Watcher())
    assert _files(tmp_path / "toy" / "pairs") == before


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


DAMAGE: dict[str, tuple[str, Damage]] = {
    "a row": ("part-0000.jsonl", _flip),
    "a clip": ("clips/0000-000-chosen.mp4", _flip),
    "a clip cut": ("clips/0000-001-rejected.mp4", lambda path: path.write_bytes(path.read_bytes()[:50])),
    "a clip gone": ("clips/0000-000-rejected.mp4", lambda path: path.unlink()),
    "the record": ("collected.jsonl", _flip),
    "the record gone": ("collected.jsonl", lambda path: path.unlink()),
    "the record cut": ("collected.jsonl", lambda path: path.write_bytes(path.read_bytes()[:80])),
}


@pytest.mark.parametrize("moment", ["collect 2", "dpo 1"])
@pytest.mark.parametrize("what", DAMAGE)
def test_what_was_collected_must_be_as_it_was(tmp_path: Path, moment: str, what: str) -> None:
    name, damage = DAMAGE[what]
    folder = _stop(tmp_path, moment)
    damage(folder / "pairs" / name)
    before = _files(folder / "pairs")
    sentence = (
        r"is not what the stage has collected: it was changed, damaged or removed; put it back, or start a new run"
    )
    with pytest.raises(BadData, match=sentence):
        _resume(tmp_path)
    assert _files(folder / "pairs") == before


def test_once_all_is_done_lost_pairs_are_only_said(tmp_path: Path) -> None:
    folder = go(_recipe(tmp_path), Watcher())
    (folder / "pairs" / "clips" / "0000-000-chosen.mp4").unlink()
    watcher = Watcher()
    go(_recipe(tmp_path), watcher, resume=True)
    said, ended = watcher.said
    assert "chosen.mp4' is not what the stage has collected" in said
    assert said.endswith("No stage is left to read it.")
    assert "is finished already" in ended


def test_a_collection_that_starts_over_replaces_its_own(
    collected: dict[str, bytes], tmp_path: Path, in_child: InChild
) -> None:
    assert in_child(lambda: go(_recipe(tmp_path, save_every=50), Watcher("collect 3", die))) < 0
    assert newest(tmp_path / "toy") == "base"
    assert (tmp_path / "toy" / "pairs" / "part-0002.jsonl").exists()
    assert _files(_resume(tmp_path) / "pairs").keys() == collected.keys()
