"""The command `evaluate`: measured as a recipe says, under a name of its own, and never over what is there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reelign import names

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with a small evaluation, in the folder where the command runs."""
    stage = {"name": "offline", "steps": 1, "dataset": {"name": "playground"}, "method": "sft"}
    judged: dict[str, Any] = {
        "dataset": {"name": "playground", "held_out": True, "prompts": 2},
        "members": 2,
        "samplers": [{"steps": 2}],
        "metrics": ["diversity"],
        "videos": 1,
    }
    tree = {"run": {"name": "toy"}, "model": {"name": "wan"}, "evaluate": judged, "stages": [stage]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "r.yaml"


def test_two_evaluations_lie_side_by_side_and_none_is_replaced(reelign: Call, recipe: Path) -> None:
    code, out, err = reelign("evaluate", "playground", "--recipe", recipe)
    assert code == 0, err
    path = Path("evaluation/evaluations/playground.json")
    lines = out.splitlines()
    assert lines[0].split() == ["measure", "mean", "low", "high", "clips"]
    assert lines[-2:] == ["low and high: 95 % bootstrap interval of the mean over prompts", f"written {path}"]
    assert err.splitlines()[0] == "evaluate (clips)  0/4"
    assert err.splitlines()[-1].startswith("evaluate (clips)  4/4")
    before = path.read_bytes()
    assert json.loads(before)["label"] == "playground"
    code, out, err = reelign("evaluate", "playground", "--recipe", recipe, "--set", "evaluate.seed=1")
    assert (code, out) == (2, "")
    assert err == (
        f"reelign: '{path}' is there from an earlier evaluation and is not replaced; give this one another --name or "
        "--out.\n"
    )
    again = ("evaluate", "playground", "--recipe", recipe, "--set", "evaluate.seed=1", "--name", "other seed", "--json")
    code, out, err = reelign(*again)
    assert code == 0, err
    judged = json.loads(path.with_name("other seed.json").read_bytes())
    assert json.loads(out) == {"s2g3": judged["measures"]}
    assert path.read_bytes() == before
    assert {folder.name for folder in Path("evaluation/samples").iterdir()} == {"playground", "other seed"}


def test_each_sampler_has_its_table_and_its_file(reelign: Call, recipe: Path) -> None:
    two = "evaluate.samplers=[{steps: 2, guidance: 1.0}, {steps: 3, name: guided, prompts: 1}]"
    code, out, err = reelign("evaluate", "playground", "--recipe", recipe, "--set", two)
    assert code == 0, err
    paths = [Path("evaluation/evaluations") / f"{name}.json" for name in ("playground", "playground@guided")]
    lines = out.splitlines()
    assert (lines[0], lines[5]) == ("s2g1", "guided")
    assert [lines[n].split()[0] for n in (3, 8)] == ["diversity", "diversity"]
    assert [lines[n].split()[-1] for n in (3, 8)] == ["4", "2"]
    assert lines[-1] == f"written {paths[0]}, {paths[1]}"
    assert err.splitlines()[-1].startswith("evaluate (clips)  6/6")
    paths[0].unlink()
    code, _, err = reelign("evaluate", "playground", "--recipe", recipe, "--set", two)
    assert code == 2
    assert err.startswith(f"reelign: '{paths[1]}' is there from an earlier evaluation")


def test_a_model_is_called_by_its_run_or_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert names.of_model("playground") == "playground"
    assert names.of_model("runs/sft/final") == names.of_model("runs/sft/final/") == "sft"
    assert names.of_model("my/wan/") == "wan"
    assert names.of_model(".") == tmp_path.name


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--name", "a/b"), "--name: a label has no / or "),
        (("--set", "evaluate=null"), "has no `evaluate`; add one that names a dataset and metrics"),
    ],
)
def test_what_cannot_be_measured(reelign: Call, recipe: Path, words: tuple[str, ...], sentence: str) -> None:
    code, out, err = reelign("evaluate", "playground", "--recipe", recipe, *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_the_best_of_a_model_is_chosen_on_one_half_and_judged_on_the_other(reelign: Call, recipe: Path) -> None:
    Path("p.txt").write_text(
        "".join(
            f"A {size} red {shape} moves left slowly on a {tint} background.\n"
            for size in ("large", "small")
            for shape in ("circle", "square", "triangle")
            for tint in ("teal", "gray")
        )
    )
    asked = ("evaluate", "playground", "--recipe", recipe, "--best", "4", "--by", "diversity", "--prompts", "p.txt",
             "--guidance", "1", "--guidance", "3")  # fmt: skip
    code, out, err = reelign(*asked, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads(Path("evaluation/best.json").read_text())
    assert (found["by"], found["chosen_on"], found["judged_on"], found["contests"]) == ("diversity", 6, 6, [])
    (chosen,) = found["chosen"]
    assert [(each["sampler"]["steps"], each["sampler"]["guidance"]) for each in chosen["tried"]] == [(4, 1), (2, 3)]
    best = max(chosen["tried"], key=lambda each: each["mean"])
    assert chosen["sampler"] == best["sampler"]
    assert err.splitlines()[-1].startswith("search (clips)  36/36")
    code, out, err = reelign(*asked)
    assert code == 0, err
    assert out.splitlines()[0] == "chosen by diversity on 6 prompts, judged on 6 others"
    assert out.splitlines()[-1] == "written evaluation/best.json"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--best", "5", "--by", "diversity"), "5 forwards a clip cannot be spent with and without guidance"),
        (("--best", "2", "--by", "diversity"), "give an even number from 4 on"),
        (("--best", "4"), "the recipe has no gate whose target could choose"),
        (("--best", "4", "--by", "divresity"), "nothing measures 'divresity', by which to choose; measured: diversity"),
        (("--best", "4", "--by", "diversity"), "there are 2 prompts, of which one half chooses and the other judges"),
        (("--best", "4", "--by", "diversity", "--guidance", "-1"), "guidance: input should be greater than or equal"),
        (("--by", "diversity"), "go with --best; give it, or leave them out"),
        (("playground",), "go with --best; give it, or leave them out"),
        (("playground", "--best", "4", "--by", "diversity", "--set", "evaluate.dataset.prompts=12"), "named twice"),
        (("nowhere", "--best", "4"), "'nowhere' is no pipeline folder"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_any_compute(
    reelign: Call, recipe: Path, words: tuple[str, ...], sentence: str
) -> None:
    code, out, err = reelign("evaluate", "playground", "--recipe", recipe, *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert not Path("evaluation").exists()
