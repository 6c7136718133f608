"""Parts from outside, each a file of its own: a stage that is served as ours, a reward with a network."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.driver.toys import DATA, Watcher, go, interrupt, outcome_of, recipe_in, rows_of
from tests.parts import network_reward

from reelign import driver
from reelign.errors import BadConfig
from reelign.report import page

MIXED = {
    "name": "tests.parts.mixed_stage",
    "steps": 6,
    "sources": [{"dataset": {**DATA, "mean": 1.0}, "turns": 2}, {"dataset": {**DATA, "mean": -1.0}}],
    "method": "sft",
    "learner": {"lr": 0.05, "ema": 0.5},
    "gate": {"targets": ["level"]},
}
TASTE: dict[str, Any] = {
    "name": "online",
    "steps": 2,
    "prompts": 2,
    "group": 4,
    "dataset": DATA,
    "sampler": {"steps": 4},
    "method": {"name": "grpo", "among": 3},
    "rewards": [{"name": "tests.parts.network_reward", "weight": {"taste": 2.0}}],
}


def test_a_stage_from_outside_runs_is_judged_saved_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = go(recipe_in(tmp_path / "whole", stages=[MIXED]), Watcher())
    with pytest.raises(driver.Interrupted, match="saved after step 3 of stage mixed"):
        go(recipe_in(tmp_path, stages=[MIXED]), Watcher("mixed 3", interrupt))
    again = go(recipe_in(tmp_path, stages=[MIXED]), Watcher(), resume=True)
    assert outcome_of(again) == outcome_of(whole)
    assert [row["mixed/turn"] for row in rows_of(whole / "metrics.jsonl")] == [0, 1, 2, 0, 1, 2]
    (row,) = rows_of(whole / "ledger.jsonl")
    assert (row["stage"], row["kind"], row["clips"], row["judged"]) == ("mixed", MIXED["name"], 24, True)
    assert row["gate"]["verdict"] == "passed"


def test_a_stage_from_outside_can_be_extended(tmp_path: Path) -> None:
    stage = {**MIXED, "gate": None}
    long = go(recipe_in(tmp_path / "long", stages=[stage]), Watcher())
    go(recipe_in(tmp_path, stages=[{**stage, "steps": 4}]), Watcher())
    watcher = Watcher()
    more = go(recipe_in(tmp_path, stages=[stage]), watcher, resume=True)
    assert "mixed was finished after 4 steps, and goes on to 6 as asked now." in watcher.said
    assert outcome_of(more)["final"] == outcome_of(long)["final"]


def test_the_data_of_a_stage_from_outside_is_checked_with_its_place(tmp_path: Path) -> None:
    sources = [{"dataset": {"name": "clip_folder", "path": "{run}/pairs"}}]
    with pytest.raises(BadConfig, match=r"^stages\.0\.sources\.0\.dataset: {run} stands for the run folder in a stage"):
        driver.check(recipe_in(tmp_path, stages=[{**MIXED, "sources": sources}]))


def test_a_rewards_network_stays_on_its_device_and_out_of_the_policy(tmp_path: Path) -> None:
    network_reward.BUILT.clear()
    run = go(recipe_in(tmp_path, stages=[TASTE], evaluate=None), Watcher())
    (taste,) = network_reward.BUILT
    assert taste.saw == {torch.device("cpu")}
    again = network_reward.build(network_reward.Config(name="tests.parts.network_reward"))
    for name, weight in again.network.state_dict().items():
        assert torch.equal(taste.network.state_dict()[name], weight)  # nothing trained it
    assert all(parameter.grad is None for parameter in taste.network.parameters())
    with safe_open(next((run / "checkpoints").glob("*-end")) / "learner.safetensors", "pt") as kept:
        assert {name.partition("/")[2] for name in kept.keys()} == {"offset", "shift"}  # noqa: SIM118


def test_a_score_without_a_weight_is_logged_and_does_not_train(tmp_path: Path) -> None:
    def trained(name: str, weight: Any) -> tuple[Path, bytes]:
        stage = {**TASTE, "rewards": [{**TASTE["rewards"][0], "weight": weight}]}
        run = go(recipe_in(tmp_path / name, stages=[stage], evaluate=None), Watcher())
        return run, (run / "final" / "offsets.safetensors").read_bytes()

    weights = {"part": {"taste": 2.0}, "same": {"taste": 2.0, "fuss": 0}, "both": 2.0}
    (run, part), (_, same), (_, both) = (trained(name, weight) for name, weight in weights.items())
    assert part == same != both
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert 0 < row["online/reward/fuss"] < 1
        assert row["online/reward"] == pytest.approx(row["online/reward/taste"])
    (entry,) = rows_of(run / "ledger.jsonl")
    assert entry["rewards"] == {"tests.parts.network_reward": {"weight": {"taste": 2.0}, "version": "1"}}
    assert "weight taste 2, v1" in page.write(run).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        (
            {"tast": 1.0},
            r": weight has 'tast', which 'tests\.parts\.network_reward' does not give; it gives taste, fuss\.$",
        ),
        (
            {"taste": 0.0},
            r": weight leaves nothing of 'tests\.parts\.network_reward' to train on; raise one above 0\.$",
        ),
        ({"taste": -1.0}, r": weight has \{taste: -1\}; give each score a number from 0 to 1e6\.$"),
        (0, r"\.weight: input should be greater than 0"),
    ],
)
def test_weights_that_no_score_can_have_are_refused_without_building(
    tmp_path: Path, weight: Any, sentence: str
) -> None:
    network_reward.BUILT.clear()
    with pytest.raises(BadConfig, match=rf"^stages\.0\.rewards\.0{sentence}"):
        recipe_in(tmp_path, stages=[{**TASTE, "rewards": [{**TASTE["rewards"][0], "weight": weight}]}])
    assert not network_reward.BUILT
