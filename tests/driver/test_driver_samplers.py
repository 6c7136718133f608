"""Several samplers: each has its file, guards look at all, looks on the way and the best at the main one only."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.driver.toys import InChild, Watcher, die, go, interrupt, outcome_of, recipe_in, tree_of

from reelign import driver
from reelign.driver import check
from reelign.errors import BadConfig
from reelign.events import Event

PLAIN, GUIDED = {"steps": 4, "shift": 3.0, "guidance": 1.0}, {"name": "guided", "steps": 6, "guidance": 3.0}
BOTH = f"evaluate.samplers={json.dumps([PLAIN, GUIDED])}"


def _judged(folder: Path, key: str) -> dict[str, Any]:
    return json.loads((folder / "evaluations" / f"{key}.json").read_text())


def test_the_main_sampler_has_the_file_of_the_label_and_each_other_one_with_its_name(tmp_path: Path) -> None:
    model, stages = {"name": "gaussian", "side": 16, "mean": 0.5, "var": 0.002}, tree_of(tmp_path)["stages"][1:2]
    folder = go(recipe_in(tmp_path, BOTH, "evaluate.videos=2", "stages.0.learner.lr=1e-6", model=model, stages=stages))
    keys = ["base", "base@guided", "grpo", "grpo@guided"]
    assert sorted(path.stem for path in (folder / "evaluations").glob("*.json")) == keys
    main, other = _judged(folder, "grpo"), _judged(folder, "grpo@guided")
    assert main["sampler"] == {"name": "s4g1", **PLAIN}
    assert other["sampler"] == {"shift": 5.0, **GUIDED}
    assert (main["label"], other["label"]) == ("grpo", "grpo")
    # The same prompts from the same noise, whichever solver takes it from there.
    assert [(c["prompt_id"], c["seed"]) for c in main["clips"]] == [(c["prompt_id"], c["seed"]) for c in other["clips"]]
    assert [c["measures"] for c in main["clips"]] != [c["measures"] for c in other["clips"]]
    films = [clip["video"] for each in (main, other) for clip in each["clips"] if clip["video"]]
    assert films == [f"samples/{key}/{p:04d}-0.mp4" for key in ("grpo", "grpo@guided") for p in (0, 1)]
    assert all((folder / film).is_file() for film in films)


def test_a_further_sampler_moves_nothing_of_the_main_one_nor_of_the_weights(tmp_path: Path) -> None:
    alone, both = go(recipe_in(tmp_path / "alone")), go(recipe_in(tmp_path / "both", BOTH))
    for label in ("base", "sft", "grpo", "dpo"):
        assert _judged(alone, label)["clips"] == _judged(both, label)["clips"]
    assert outcome_of(alone)["final"] == outcome_of(both)["final"]


def test_a_sampler_with_fewer_prompts_takes_the_first_ones_so_that_clips_stay_paired(tmp_path: Path) -> None:
    few = json.dumps([PLAIN, {**GUIDED, "prompts": 3}])
    folder = go(recipe_in(tmp_path, f"evaluate.samplers={few}"))
    whole, some = _judged(folder, "base"), _judged(folder, "base@guided")
    assert [c["seed"] for c in some["clips"]] == [c["seed"] for c in whole["clips"]][:6]
    assert {c["prompt_id"] for c in some["clips"]} == {0, 1, 2}
    assert "prompts" not in some["sampler"]


def test_looks_on_the_way_and_the_best_are_of_the_main_sampler(tmp_path: Path) -> None:
    folder = go(recipe_in(tmp_path, BOTH, "evaluate.every=2", "evaluate.best=level"))
    looks = list((folder / "evaluations" / "steps").glob("*.json"))
    assert looks
    assert {json.loads(path.read_text())["sampler"]["name"] for path in looks} == {"s4g1"}
    assert all(path.stem.count("@") == 1 for path in looks)


@pytest.mark.parametrize("moment", ["evaluate base (clips) 8", "evaluate sft (clips) 24", "grpo 1"])
@pytest.mark.parametrize("deed", [die, interrupt])
def test_an_interrupted_run_has_the_same_evaluations_under_all_samplers(
    tmp_path: Path, in_child: InChild, moment: str, deed: Callable[[], None]
) -> None:
    whole = go(recipe_in(tmp_path / "whole", BOTH))
    broken = recipe_in(tmp_path / "broken", BOTH)
    killed = -signal.SIGKILL if deed is die else 0
    assert in_child(lambda: _stopped(broken, moment, deed)) == killed
    assert outcome_of(go(broken, resume=True)) == outcome_of(whole)


def _stopped(recipe: driver.Recipe, moment: str, deed: Callable[[], None]) -> None:
    with pytest.raises(driver.Interrupted):
        go(recipe, Watcher(moment, deed))


def test_a_changed_evaluation_of_a_further_sampler_is_not_gone_on_from(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, BOTH)
    with pytest.raises(driver.Interrupted):
        go(recipe, Watcher("grpo 1", interrupt))
    path = recipe.path / "evaluations" / "base@guided.json"
    path.write_text(path.read_text().replace("guided", "guidet"))
    with pytest.raises(Exception, match=r"base@guided\.json' is not the evaluation that was written"):
        go(recipe, resume=True)


def test_gates_know_their_sampler_and_what_entered_unjudged(tmp_path: Path) -> None:
    stages = tree_of(tmp_path)["stages"]
    stages[0].pop("gate")
    stages[1]["gate"]["sampler"] = "guided"
    folder = go(recipe_in(tmp_path, BOTH, stages=stages))
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    gate = rows[1]["gate"]
    assert gate["sampler"] == "guided"
    assert gate["targets"][0]["before"] == _judged(folder, "sft@guided")["measures"]["level"]["mean"]
    assert gate["sentence"].endswith("What entered is from sft, which no gate judged.")


def test_one_event_tells_of_all_samplers(tmp_path: Path) -> None:
    class Ears:
        def __init__(self) -> None:
            self.heard: list[Event] = []

        def send(self, event: Event) -> None:
            self.heard += [event] if event.kind == "evaluation" else []

        def close(self) -> None:
            pass

    ears = Ears()
    folder = driver.run(recipe_in(tmp_path, BOTH), [ears])
    assert [event.data["label"] for event in ears.heard] == ["base", "sft", "grpo", "dpo"]
    told = ears.heard[0].data
    assert told["means"] == {"level": _judged(folder, "base")["measures"]["level"]["mean"]}
    assert told["others"] == {"guided": {"level": _judged(folder, "base@guided")["measures"]["level"]["mean"]}}


def test_a_gate_that_names_no_sampler_of_the_evaluation_is_refused(tmp_path: Path) -> None:
    stages = tree_of(tmp_path)["stages"]
    stages[1]["gate"]["sampler"] = "guidet"
    sentence = r"^stages\.1\.gate\.sampler: no sampler of `evaluate` is called 'guidet'; there are s4g1, guided\.$"
    with pytest.raises(BadConfig, match=sentence):
        check(recipe_in(tmp_path, BOTH, stages=stages))


@pytest.mark.parametrize(
    ("samplers", "sentence"),
    [
        ([], r"^evaluate\.samplers: .*at least 1 item"),
        (
            [PLAIN, {**PLAIN, "shift": 5.0}],
            r"^evaluate\.samplers: two samplers are called 's4g1'; give one of them another `name`\.$",
        ),
        ([PLAIN, {"name": "S4G1"}], r"^evaluate\.samplers: two samplers are called 'S4G1'"),
        ([{"name": "a/b"}], r"^evaluate\.samplers\.0\.name: a label has no /"),
        ([{"prompts": 0}], r"^evaluate\.samplers\.0\.prompts: .*greater than or equal to 1"),
        ({"steps": 3}, r"^evaluate\.samplers: must be a list"),
    ],
)
def test_samplers_that_cannot_be_told_apart_are_refused(tmp_path: Path, samplers: Any, sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        recipe_in(tmp_path, f"evaluate.samplers={json.dumps(samplers)}")


@pytest.mark.parametrize("taken", ["base@guided", "SFT@Guided"])
def test_a_stage_whose_evaluation_would_lie_where_anothers_does_is_refused(tmp_path: Path, taken: str) -> None:
    sentence = rf"^the evaluation of stage '{taken}' would be written where that of '(base|sft)' under another sampler"
    with pytest.raises(BadConfig, match=sentence):
        recipe_in(tmp_path, BOTH, f"stages.2.label={taken}")
    assert recipe_in(tmp_path, f"stages.2.label={taken}")


def test_an_evaluation_as_a_stage_of_its_own_judges_under_all_its_samplers(tmp_path: Path) -> None:
    judged = {**tree_of(tmp_path)["evaluate"], "name": "evaluate", "label": "aside", "samplers": [GUIDED, PLAIN]}
    stages = [tree_of(tmp_path)["stages"][2], judged]
    recipe = recipe_in(tmp_path, stages=stages)
    with pytest.raises(driver.Interrupted):
        go(recipe, Watcher("aside 2", interrupt))
    folder = go(recipe, resume=True)
    assert _judged(folder, "aside")["sampler"]["name"] == "guided"
    assert _judged(folder, "aside@s4g1")["sampler"]["name"] == "s4g1"
    assert [row["steps"] for row in map(json.loads, (folder / "ledger.jsonl").read_text().splitlines())][1] == 4
