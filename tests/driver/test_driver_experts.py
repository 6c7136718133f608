"""A model of two networks, whose card says at which noise level the second one takes over, through checks and a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.driver.toys import recipe_in, rows_of, tree_of

from reelign import driver
from reelign.errors import BadConfig

MODEL = {"name": "tests.parts.two_experts", "side": 2, "var": 0.5, "bins": 2}
SENTENCE = (
    "method.window: steps 2 to 3 lie on both sides of the experts' boundary at 0.8; lower window or among so that "
    "every window keeps to one expert."
)


def _changes(root: Path, among: int, **model: Any) -> dict[str, Any]:
    """An online stage whose levels are 1, .94, .86, .75, .6, .375: a boundary of 0.8 lies between steps 2 and 3."""
    online = {**tree_of(root)["stages"][1], "sampler": {"steps": 6, "shift": 3.0}, "steps": 3}
    online |= {"method": {"name": "grpo", "window": 2, "among": among}, "gate": None}
    return {"model": {**MODEL, **model}, "stages": [online], "evaluate": None}


def test_a_window_on_both_sides_of_the_cards_boundary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig) as refused:
        driver.check(recipe_in(tmp_path, **_changes(tmp_path, among=4)))
    assert str(refused.value) == SENTENCE
    driver.check(recipe_in(tmp_path, **_changes(tmp_path, among=3)))
    driver.check(recipe_in(tmp_path, **_changes(tmp_path, among=4, boundary=0.7)))
    one = {**MODEL, "name": "gaussian"}
    driver.check(recipe_in(tmp_path, **{**_changes(tmp_path, among=4), "model": one}))


def test_a_dry_run_says_so_in_one_sentence(reelign: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    for among, expected in ((4, 2), (3, 0)):
        recipe = tmp_path / f"{among}.json"
        recipe.write_text(json.dumps({**tree_of(tmp_path), **_changes(tmp_path, among)}))
        code, _, err = reelign("align", recipe, "--dry-run")
        assert code == expected, err
        assert (SENTENCE in err) == (among == 4)
        assert err.count("\n") <= 1


def test_windows_of_the_first_network_train_it_alone(tmp_path: Path) -> None:
    folder = driver.run(recipe_in(tmp_path, **_changes(tmp_path, among=3)))
    assert sum(row["online/updated"] for row in rows_of(folder / "metrics.jsonl")) > 0
    trained = load_file(folder / "final" / "offsets.safetensors")
    moved = {name.partition(".")[0] for name, value in trained.items() if bool((value != 0).any())}
    assert moved == {"high"}
    assert {name.partition(".")[0] for name in trained} == {"high", "low"}
    assert all(bool(torch.isfinite(value).all()) for value in trained.values())
