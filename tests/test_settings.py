"""Numbers in settings are numbers, whatever Python or pydantic would take for one; places in them are found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BeforeValidator, Field, ValidationError

from reelign import config as configs
from reelign.errors import BadConfig
from reelign.parts import PACKAGES, available, find
from reelign.settings import Settings, in_run, within


class Inner(Settings):
    size: int = 1


class Given(Settings):
    steps: int = Field(default=1, ge=1)
    lr: float = 0.1
    seed: int | None = None
    shift: Annotated[float, Field(gt=0)] = 1.0
    betas: tuple[float, float] = (0.9, 0.99)
    bounds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    least: Mapping[str, float] = {}
    levels: float | Literal["auto"] = "auto"
    named: int | str = 0
    retain: bool = False
    either: bool | int = False
    text: str = ""
    percent: Annotated[float, BeforeValidator(lambda value: float(str(value).rstrip("%")))] = 0.0
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = ()


TRUE, TEXT = "must be a number, not true or false", "must be a number without quotes"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"steps": True}, f"steps: {TRUE} (given: True)."),
        ({"steps": False}, f"steps: {TRUE} (given: False)."),
        ({"lr": True}, f"lr: {TRUE} (given: True)."),
        ({"seed": True}, f"seed: {TRUE} (given: True)."),
        ({"shift": True}, f"shift: {TRUE} (given: True)."),
        ({"betas": [True, 0.9]}, f"betas: holds True, which {TRUE}."),
        ({"bounds": [1, 2, True]}, f"bounds: holds True, which {TRUE}."),
        ({"least": {"a": 1, "b": False}}, f"least: holds False, which {TRUE}."),
        ({"levels": True}, f"levels: {TRUE} (given: True)."),
        ({"inner": {"size": True}}, f"inner.size: {TRUE} (given: True)."),
        ({"inners": [{}, {"size": "3"}]}, f"inners.1.size: {TEXT} (given: '3')."),
        ({"steps": "5"}, f"steps: {TEXT} (given: '5')."),
        ({"lr": "2e-4"}, f"lr: {TEXT} (given: '2e-4')."),
        ({"seed": "7"}, f"seed: {TEXT} (given: '7')."),
        ({"levels": "0.5"}, f"levels: {TEXT} (given: '0.5')."),
        ({"betas": [0.9, "0.99"]}, f"betas: holds '0.99', which {TEXT}."),
    ],
)
def test_truth_values_and_texts_are_no_numbers(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadConfig) as refusal:
        configs.validate(Given, given)
    assert str(refusal.value) == sentence


def test_what_may_be_a_truth_value_or_a_text_still_is() -> None:
    given = {"retain": True, "either": True, "text": "5", "named": "5", "levels": "auto", "percent": "5%", "lr": 2}
    found = configs.validate(Given, given)
    assert {key: getattr(found, key) for key in given} == {**given, "percent": 5.0}
    assert found.either is True
    assert configs.validate(Given, {"steps": 1e3, "seed": None}).steps == 1000
    assert configs.validate(Given, {"steps": "15_000"}).steps == 15_000  # YAML gives it as a text


def test_a_text_that_is_no_number_is_refused_in_the_usual_words() -> None:
    with pytest.raises(BadConfig, match=r"^steps: input should be a valid integer, .* \(given: 'many'\)\.$"):
        configs.validate(Given, {"steps": "many"})


def test_no_number_of_any_shipped_part_takes_true() -> None:
    refused = 0
    for kind in PACKAGES:
        for name in available(kind):
            config = find(kind, name).Config
            for field in (field for field, about in config.model_fields.items() if about.annotation in (int, float)):
                with pytest.raises(ValidationError) as refusal:
                    config.model_validate({field: True})
                told = {error["loc"]: error["msg"] for error in refusal.value.errors(include_url=False)}
                assert TRUE in told[(field,)], f"{kind} {name}"
                refused += 1
    assert refused > 50


class Read(Settings):
    path: Path
    beside: str = ""
    more: tuple[str, ...] = ()
    least: Mapping[str, float] = {}


@pytest.mark.parametrize(
    ("path", "lies"),
    [
        ("{run}/pairs/pairs.jsonl", "runs/mine/pairs/pairs.jsonl"),
        ("{run}", "runs/mine"),
        ("./{run}/pairs", "runs/mine/pairs"),
        ("data/{run}/pairs", None),
        ("{run}pairs", None),
        ("/data/clips", None),
    ],
)
def test_what_begins_with_the_run_folder_lies_in_it(path: str, lies: str | None) -> None:
    config = Read(path=Path(path), beside=path, more=("plain", path))
    assert in_run(config) == (lies is not None)
    found = within(config, Path("runs/mine"))
    expected = lies or path
    assert (found.path, found.more) == (Path(expected), ("plain", expected))
    assert found.beside == expected
    assert found.model_fields_set == {"path", "beside", "more"}
    assert (found == config) == (lies is None)


def test_any_place_of_a_tree_may_be_named() -> None:
    tree = {"stages": [{"dataset": {"path": "{data}/clips"}, "steps": 3}], "evaluate": None}
    assert within(tree, Path("/d"), "{data}") == {
        "stages": [{"dataset": {"path": "/d/clips"}, "steps": 3}], "evaluate": None
    }  # fmt: skip
    assert within(tree, Path("/d")) == tree
