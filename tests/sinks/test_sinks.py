"""Sinks: what they tell others, on libraries that only note what they are told."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.driver.toys import Watcher, go, recipe_in

from reelign import driver, parts
from reelign.errors import MissingExtra
from reelign.events import About, Event, Sink

STEP = Event(10.0, "step", "sft", 3, 5, {"offline/loss": 0.5, "wall_s": 0.1})
JUDGED = Event(
    11.0,
    "evaluation",
    "sft",
    3,
    5,
    {"label": "steps/sft@3", "means": {"level": 0.25, "none": None}, "others": {"s16g3": {"level": 0.5}}},
)


class Noting:
    """A module or an object of a library: calls are noted, and give the same again."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> "Noting":
            self.calls.append((name, args, kwargs))
            return self

        return call

    def named(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


@pytest.fixture
def about(tmp_path: Path) -> About:
    return About(tmp_path, "toy", "0123456789abcdef0123", {"run": {"seed": 3}})


def _built(kind: str, about: About, **settings: Any) -> Sink:
    sink = parts.build("sink", parts.configure("sink", {"name": kind, **settings}), about)
    assert isinstance(sink, Sink)
    return sink


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`library("wandb")`: stands in for the package of that name."""

    def stand_in(name: str) -> Noting:
        noting = Noting()
        module = ModuleType(name)
        module.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec(name, None)
        module.__getattr__ = lambda attribute: getattr(noting, attribute)  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, name, module)
        return noting

    return stand_in


def test_wandb_gets_a_row_a_step_with_the_stages_own_axis_and_stays_offline(library: Any, about: About) -> None:
    noting = library("wandb")
    sink = _built("wandb", about)
    for event in (Event(9.0, "stage", "sft", 0, 5, {}), STEP, JUDGED, Event(12.0, "note", data={"text": "so"})):
        sink.send(event)
    sink.close()
    ((_, begun),) = noting.named("init")
    assert (begun["mode"], begun["id"], begun["resume"]) == ("offline", "0123456789abcdef", "allow")
    assert begun["dir"] == str(about.folder)
    assert noting.named("define_metric") == [(("sft/*",), {"step_metric": "sft/step"})]
    assert [args[0] for args, _ in noting.named("log")] == [
        {"sft/offline/loss": 0.5, "sft/wall_s": 0.1, "sft/step": 3},
        {"sft/held-out/level": 0.25, "sft/held-out@s16g3/level": 0.5, "sft/step": 3},
    ]
    assert len(noting.named("finish")) == 1


def test_trackio_gets_the_same_rows(library: Any, about: About) -> None:
    noting = library("trackio")
    sink = _built("trackio", about, project="lab")
    for event in (STEP, JUDGED):
        sink.send(event)
    sink.close()
    ((_, begun),) = noting.named("init")
    assert (begun["project"], begun["name"]) == ("lab", "toy-01234567")
    assert [args[0]["sft/step"] for args, _ in noting.named("log")] == [3, 3]


def test_tensorboard_gets_curves_and_takes_back_the_steps_that_are_repeated(
    about: About, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    library("tensorboard")
    board = ModuleType("torch.utils.tensorboard")
    writers: list[Noting] = []

    def writer(folder: str, purge_step: int) -> Noting:
        writers.append(Noting())
        writers[-1].begun(folder, purge_step)
        return writers[-1]

    board.SummaryWriter = writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    sink = _built("tensorboard", about)
    for event in (Event(9.0, "stage", "sft", 2, 5, {}), STEP, JUDGED):
        sink.send(event)
    sink.close()
    (only,) = writers
    assert only.named("begun") == [((str(about.folder / "tensorboard" / "sft"), 3), {})]
    assert [args for args, _ in only.named("add_scalar")] == [
        ("offline/loss", 0.5, 3),
        ("wall_s", 0.1, 3),
        ("held-out/level", 0.25, 3),
        ("held-out@s16g3/level", 0.5, 3),
    ]
    assert len(only.named("close")) == 1


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_missing_package_is_found_before_any_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("reelign.sinks._tracking.find_spec", lambda _: None)
    recipe = recipe_in(tmp_path, sinks=[{"name": name}])
    with pytest.raises(
        MissingExtra, match=rf"^the sink '{name}' needs .*; run pip install 'reelign\[{name}\]', or leave"
    ):
        driver.check(recipe)
    with pytest.raises(MissingExtra):
        driver.run(recipe)
    assert not (tmp_path / "toy").exists()


def test_events_of_a_run_are_written_a_line_each_and_a_resume_may_have_other_sinks(tmp_path: Path) -> None:
    with pytest.raises(driver.Interrupted):
        go(
            recipe_in(tmp_path, sinks=["jsonl"]),
            Watcher("grpo 3", lambda: __import__("os").kill(__import__("os").getpid(), 2)),
        )
    path = tmp_path / "toy" / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert {event["kind"] for event in events} == {
        "stage",
        "phase",
        "step",
        "evaluation",
        "gate",
        "saved",
        "note",
        "sample",
    }
    steps = [(e["stage"], e["step"], e["of"]) for e in events if e["kind"] == "step"]
    assert steps == [("sft", n, 5) for n in range(1, 6)] + [("grpo", n, 6) for n in range(1, 4)]
    (gate,) = [e["data"] for e in events if e["kind"] == "gate"]
    assert gate["verdict"] == "failed"
    judged = [(e["data"]["label"], e["step"]) for e in events if e["kind"] == "evaluation"]
    assert judged == [("base", 0), ("sft", 5)]
    assert events[-1]["data"]["phase"] == "stopped"
    before = path.read_bytes()
    go(recipe_in(tmp_path), resume=True)
    assert path.read_bytes() == before


def test_a_sink_from_outside_is_told_what_happens(tmp_path: Path) -> None:
    from tests.parts import counting_sink

    counting_sink.SEEN.clear()
    go(recipe_in(tmp_path, sinks=["tests.parts.counting_sink:build"]))
    assert counting_sink.SEEN["step"] == 16
    assert counting_sink.SEEN["closed"] == 1
