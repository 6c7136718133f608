"""A run as a whole: stages in a row, gates, exact resume, and what cannot happen twice."""

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.driver.toys import (
    DATA,
    InChild,
    Watcher,
    die,
    go,
    interrupt,
    newest,
    outcome_of,
    recipe_in,
    rows_of,
    tree_of,
)

from reelign import config as configs
from reelign import driver
from reelign.core import rng
from reelign.diagnostics import gates
from reelign.driver.run_folder import RunFolder
from reelign.errors import BadConfig, RunStopped, UserError


def _resumed(root: Path) -> Path:
    return go(recipe_in(root), Watcher(), resume=(root / "toy" / "config.json").exists())


def test_a_run_folder_has_what_the_report_reads(whole: tuple[Path, list[str]]) -> None:
    folder, events = whole
    assert {p.name for p in folder.iterdir()} >= {
        "config.json",
        "ledger.jsonl",
        "metrics.jsonl",
        "evaluations",
        "checkpoints",
        "final",
    }
    assert [p.stem for p in sorted((folder / "evaluations").iterdir())] == ["base", "dpo", "grpo", "sft"]
    metrics = rows_of(folder / "metrics.jsonl")
    assert [(r["stage"], r["step"]) for r in metrics] == [
        (s, k) for s, n in (("sft", 5), ("grpo", 6), ("dpo", 5)) for k in range(n)
    ]
    ledger = rows_of(folder / "ledger.jsonl")
    assert [r["stage"] for r in ledger] == ["sft", "grpo", "dpo"]
    assert ledger[1]["rollouts"] == 6 * 3 * 4
    assert ledger[1]["rewards"] == {"tests.parts.linear_reward:build": {"weight": 0.5, "version": "1"}}
    assert [(r["entering"], r["leaving"]) for r in ledger] == [
        ("base", "sft-end"),
        ("sft-end", "grpo-end"),
        ("grpo-end", "dpo-end"),
    ]
    assert any(event.startswith("begin evaluate base") for event in events)
    config = json.loads((folder / "config.json").read_text())
    assert configs.digest(driver.Recipe.model_validate(config["config"])) == config["hash"]


def test_a_failed_gate_says_so_and_brings_the_entering_weights_back(whole: tuple[Path, list[str]]) -> None:
    folder, events = whole
    ledger = rows_of(folder / "ledger.jsonl")
    assert ledger[0]["gate"]["verdict"] == "failed"
    said = "sft: failed; no gain beyond noise in level. The weights that entered the stage are kept."
    assert said in events
    level = {p.stem: json.loads(p.read_text())["measures"]["level"]["mean"] for p in (folder / "evaluations").iterdir()}
    assert level["sft"] < level["base"]
    # GRPO began where the base was, and was judged against it.
    assert ledger[1]["gate"]["targets"][0]["before"] == level["base"]


def test_a_stage_after_one_with_a_reference_keeps_none_in_its_checkpoints(tmp_path: Path) -> None:
    stages = tree_of(tmp_path)["stages"]
    for stage in stages[:2]:
        del stage["gate"]
    seen: dict[str, set[str]] = {}

    class Looking(Watcher):
        def step(self, done: int, metrics: dict[str, float]) -> None:
            for folder in (tmp_path / "toy" / "checkpoints").iterdir():
                if folder.is_dir():
                    seen[folder.name] = {p.name for p in folder.glob("*.safetensors")}

    go(recipe_in(tmp_path, stages=[stages[1], stages[0]], evaluate=None), Looking())
    assert "reference.safetensors" in seen["grpo-00002"]
    assert seen["sft-00002"] == {"learner.safetensors"}


def test_a_stage_that_mostly_taught_nothing_says_so(tmp_path: Path, in_child: InChild) -> None:
    stage = tree_of(tmp_path)["stages"][1]
    del stage["gate"]
    stage["rewards"] = [{"name": "tests.parts.linear_reward:build", "k": 0.0}]
    said = "6 of 6 iterations taught nothing: all clips of a prompt got the same reward"
    watcher = Watcher()
    folder = go(recipe_in(tmp_path, stages=[stage], evaluate=None), watcher)
    assert f"grpo: {said}." in watcher.events
    assert rows_of(folder / "ledger.jsonl")[0]["note"] == said
    root = tmp_path / "again"
    recipe = recipe_in(root, stages=[stage], evaluate=None)
    died = in_child(lambda: go(recipe, Watcher(_moment(watcher.events, "begin grpo", 4), die)))
    assert died == -signal.SIGKILL
    assert rows_of(go(recipe, Watcher(), resume=True) / "ledger.jsonl") == rows_of(folder / "ledger.jsonl")


def test_a_stage_that_taught_something_says_nothing(whole: tuple[Path, list[str]]) -> None:
    assert [row["note"] for row in rows_of(whole[0] / "ledger.jsonl")] == ["", "", ""]


def _evaluating(root: Path) -> driver.Recipe:
    tree = tree_of(root)
    stages = [{"name": "evaluate", "label": "look", **tree["evaluate"]}, {**tree["stages"][2], "steps": 1}]
    return recipe_in(root, "stages.0.batch=3", "stages.0.members=2", stages=stages, evaluate=None)


def test_an_evaluation_as_a_stage_goes_batch_by_batch_and_can_be_stopped(tmp_path: Path) -> None:
    watcher = Watcher()
    folder = go(_evaluating(tmp_path / "whole"), watcher)
    # 8 prompts, one at a time with its 2 members: two of them are more than 3 clips.
    begin = _moment(watcher.events, "begin look 0/8")
    assert watcher.events[begin + 1 : begin + 9] == [f"step {n}" for n in range(1, 9)]
    with pytest.raises(driver.Interrupted, match=r"saved after step 2 of stage look"):
        go(_evaluating(tmp_path), Watcher(begin + 2, interrupt))
    assert not (tmp_path / "toy" / "evaluations" / "look.json").exists()
    assert outcome_of(go(_evaluating(tmp_path), Watcher(), resume=True)) == outcome_of(folder)


def test_a_run_whose_only_stage_fails_leaves_the_base(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    folder = go(recipe_in(tmp_path, stages=tree["stages"][:1]), Watcher())
    assert all(not value.any() for value in load_file(folder / "final" / "offsets.safetensors").values())


def test_a_gate_that_is_passed_hands_the_trained_weights_on(whole: tuple[Path, list[str]]) -> None:
    folder, _ = whole
    ledger = rows_of(folder / "ledger.jsonl")
    assert ledger[1]["gate"]["verdict"] == "passed"
    assert ledger[2]["gate"] == gates.ungated("no gate judged it.").model_dump(mode="json")
    assert all(value.any() for value in load_file(folder / "final" / "offsets.safetensors").values())


def test_two_runs_of_one_recipe_are_equal(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    assert outcome_of(go(recipe_in(tmp_path), Watcher())) == outcome_of(whole[0])


def _moment(events: list[str], start: str, after: int = 0) -> int:
    return next(i for i, event in enumerate(events) if event.startswith(start)) + after


@pytest.mark.parametrize(
    ("start", "after"),
    [
        ("begin evaluate base", 1),
        ("begin sft", 1),
        ("begin sft", 4),
        ("begin evaluate sft", 1),
        ("sft: failed", 0),
        ("begin grpo", 4),
        ("begin evaluate grpo", 2),
        ("grpo: passed", 0),
        ("begin dpo", 3),
        ("dpo: done", 0),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bits(
    whole: tuple[Path, list[str]], tmp_path: Path, in_child: InChild, start: str, after: int
) -> None:
    folder, events = whole
    watcher = Watcher(_moment(events, start, after), die)
    assert in_child(lambda: go(recipe_in(tmp_path), watcher)) == -signal.SIGKILL
    assert outcome_of(_resumed(tmp_path)) == outcome_of(folder)


def test_a_run_killed_again_and_again_goes_on_to_the_same_bits(
    whole: tuple[Path, list[str]], tmp_path: Path, in_child: InChild
) -> None:
    deaths = 0
    while in_child(
        lambda: go(recipe_in(tmp_path), Watcher(6, die), resume=(tmp_path / "toy" / "config.json").exists())
    ):
        deaths += 1
        assert deaths < 40, "no progress between two kills"
    assert deaths > 5
    assert outcome_of(tmp_path / "toy") == outcome_of(whole[0])


def test_a_run_killed_at_any_time_goes_on_to_the_same_bits(
    whole: tuple[Path, list[str]], tmp_path: Path, in_child: InChild
) -> None:
    """Kills by the clock, so that they also fall into saves, evaluations and rows half written."""
    delays = [0.02 + 0.001 * rng.integer(120, seed=i) for i in range(8)]
    for delay in delays:

        def work(delay: float = delay) -> None:
            threading.Thread(target=lambda: (time.sleep(delay), die()), daemon=True).start()
            _resumed(tmp_path)

        assert in_child(work) in (0, -signal.SIGKILL)
    assert outcome_of(_resumed(tmp_path)) == outcome_of(whole[0])
    assert not list(tmp_path.rglob(".*.tmp-*"))  # nor is anything half-written left


@pytest.mark.parametrize(
    "start", ["begin evaluate base", "begin sft", "begin grpo", "begin evaluate grpo", "begin dpo"]
)
def test_ctrl_c_saves_first_and_the_run_goes_on_to_the_same_bits(
    whole: tuple[Path, list[str]], tmp_path: Path, start: str
) -> None:
    folder, events = whole
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(driver.Interrupted, match=r"saved (after|before) .*; go on with --resume"):
        go(recipe_in(tmp_path), Watcher(_moment(events, start, 1), interrupt))
    assert signal.getsignal(signal.SIGINT) is before
    assert (newest(tmp_path / "toy") == "base") == (start == "begin evaluate base")
    assert outcome_of(_resumed(tmp_path)) == outcome_of(folder)


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    with pytest.raises(driver.Interrupted, match=r"^stopped at once; go on from the last checkpoint with --resume\.$"):
        go(recipe_in(tmp_path), Watcher(2, twice))


def test_resuming_a_finished_run_changes_nothing(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder = go(recipe_in(tmp_path), Watcher())
    watcher = Watcher()
    go(recipe_in(tmp_path), watcher, resume=True)
    assert watcher.events == watcher.said
    assert [sentence.partition(";")[0] for sentence in watcher.said] == [f"{folder} is finished already"]
    assert outcome_of(folder) == outcome_of(whole[0])


def test_starting_over_an_existing_run_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path / "toy").prepare(recipe_in(tmp_path), resume=False)
    with pytest.raises(
        BadConfig, match=r"toy' already holds a run; go on with --resume, or choose another name with --set run.name"
    ):
        go(recipe_in(tmp_path), Watcher())


def test_a_run_refused_before_it_made_anything_gives_its_name_back(tmp_path: Path) -> None:
    first = tree_of(tmp_path)["stages"][1]
    del first["gate"]
    recipe = recipe_in(tmp_path, "stages.0.rewards.0.limit=0.001", stages=[first], evaluate=None)
    with pytest.raises(RunStopped, match="outside its scale"):
        go(recipe, Watcher())
    assert not (tmp_path / "toy" / "config.json").exists()
    assert (go(recipe_in(tmp_path), Watcher()) / "final").exists()


def test_resuming_what_was_never_started_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"toy' holds no run to resume; start it without --resume"):
        go(recipe_in(tmp_path), Watcher(), resume=True)
    assert not (tmp_path / "toy").exists()


def test_resuming_with_other_settings_is_refused_by_key(tmp_path: Path) -> None:
    RunFolder(tmp_path / "toy").prepare(recipe_in(tmp_path), resume=False)
    with pytest.raises(
        BadConfig, match=r"other settings \(stages\.1\.learner\.lr: 0\.05 then, 0\.1 now\); resume with the same recipe"
    ):
        go(recipe_in(tmp_path, "stages.1.learner.lr=0.1"), Watcher(), resume=True)


def test_two_runs_in_one_folder_are_impossible(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    RunFolder(tmp_path / "toy").prepare(recipe, resume=False)
    with RunFolder(tmp_path / "toy").locked(), pytest.raises(BadConfig, match=r"another process is running in .*toy'"):
        go(recipe, Watcher(), resume=True)


def test_a_run_that_must_stop_keeps_its_last_checkpoint(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, "stages.1.rewards.0.limit=0.001")
    with pytest.raises(RunStopped, match=r"the reward 'linear' gave .* outside its scale -0\.001 to 0\.001"):
        go(recipe, Watcher())
    assert newest(tmp_path / "toy") == "sft-end"


def test_stages_are_labelled_by_method_and_made_unique(tmp_path: Path) -> None:
    stages = tree_of(tmp_path)["stages"]
    assert driver.labels(recipe_in(tmp_path, stages=[stages[1], stages[1], {**stages[0], "label": "shape"}])) == [
        "grpo",
        "grpo-2",
        "shape",
    ]
    assert driver.labels(recipe_in(tmp_path, stages=[{**stages[0], "label": "base"}])) == ["base-2"]


@pytest.mark.parametrize(
    ("assignments", "sentence"),
    [
        (("evaluate=null",), r"stages\.0\.gate: gates compare evaluations, but the recipe has no `evaluate`"),
        (
            ("stages.0.gate.targets=[speed]",),
            r"stages\.0\.gate: no metric of `evaluate` measures 'speed'; measured: level\.",
        ),
        (
            ("stages.1.method.window=4",),
            r"stages\.1: method\.window: 4 stochastic steps do not fit among the first 3 of 4",
        ),
        (
            ("stages.0.method={name: grpo}",),
            r"stages\.0\.method: 'grpo' trains on what the policy samples; give it a stage 'online'\.",
        ),
        (
            ("stages.1.method={name: dpo}",),
            r"stages\.1\.method: 'dpo' trains on clips or pairs that exist; give it a stage 'offline'\.",
        ),
    ],
)
def test_what_can_be_known_to_fail_fails_before_any_compute(
    tmp_path: Path, assignments: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        go(recipe_in(tmp_path, *assignments), Watcher())
    assert not (tmp_path / "toy").exists()


def _collecting(root: Path) -> driver.Recipe:
    """Collect writes pairs into the run folder; DPO names them by {run}."""
    collect = {
        "name": "collect", "dataset": DATA, "prompts": 7, "per_step": 2, "members": 3, "noise": 0.0, "tie": 0.0,
        "sampler": {"steps": 3}, "rewards": ["tests.parts.linear_reward:build"],
    }  # fmt: skip
    learn = {
        "name": "offline", "steps": 2, "batch": 3, "method": "dpo",
        "dataset": {"name": "pair_list", "path": "{run}/pairs/pairs.jsonl"}, "learner": {"lr": 0.01},
    }  # fmt: skip
    model = {"name": "gaussian", "side": 16, "mean": 0.5, "var": 0.002}
    return recipe_in(root, "evaluate=null", "run.save_every=1", stages=[collect, learn], model=model)


def test_a_stage_that_reads_what_an_earlier_one_wrote(tmp_path: Path, in_child: InChild) -> None:
    folder = go(_collecting(tmp_path), Watcher())
    ledger = rows_of(folder / "ledger.jsonl")
    assert (ledger[0]["pairs"], ledger[0]["rollouts"]) == (7, 21)
    assert "simulated" in ledger[0]["note"]
    assert ledger[0]["gate"]["sentence"] == "it trains nothing."
    assert load_file(folder / "final" / "offsets.safetensors")["offset"].any()
    pairs = (folder / "pairs" / "pairs.jsonl").read_text()
    assert len(pairs.splitlines()) == 7
    for moment in (2, 5):
        root = tmp_path / str(moment)
        assert in_child(lambda root=root, moment=moment: go(_collecting(root), Watcher(moment, die))) == -signal.SIGKILL
        again = go(_collecting(root), Watcher(), resume=True)
        assert (again / "pairs" / "pairs.jsonl").read_text() == pairs
        assert _outcome_without_paths(again) == _outcome_without_paths(folder)


def _outcome_without_paths(folder: Path) -> dict[str, Any]:
    (folder / "evaluations").mkdir(exist_ok=True)
    return json.loads(json.dumps(outcome_of(folder)).replace(str(folder), "RUN"))
