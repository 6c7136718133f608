"""The command line: exit codes, one sentence for input errors, results that programs can read."""

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reelign.cli import _console, _pages
from reelign.face.table import table
from reelign.parts import refuse_outside

Call = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent / "reelign"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
}
"""Where parts of the tests are found."""
DATA = {"name": "tests.parts.gaussian_data:build"}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    tree = {
        "run": {"name": "toy", "root": str(tmp_path / "runs"), "save_every": 1},
        "model": {"name": "gaussian"},
        "stages": [
            {"name": "offline", "steps": 3, "batch": 2, "dataset": DATA, "method": "sft", "learner": {"lr": 0.01}}
        ],
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_help_answers_within_a_second_and_imports_nothing_heavy() -> None:
    program = (
        "import sys, time; began = time.process_time(); sys.argv = ['reelign', '--help']\n"
        "from reelign.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = [n for n in ('torch', 'diffusers', 'transformers', 'numpy', 'pydantic', 'yaml') if n in sys.modules]\n"
        "print(code, time.process_time() - began, heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for command in (
        "align",
        "verify",
        "demo",
        "sample",
        "score",
        "evaluate",
        "compare",
        "report",
        "parts",
        "config",
        "playground",
    ):
        assert command in done.stdout
    code, seconds, heavy = done.stderr.split(maxsplit=2)
    assert (code, heavy.strip()) == ("0", "[]")
    assert float(seconds) < 1  # of its own; a busy machine may take longer by the clock


def test_every_command_has_help(reelign: Call) -> None:
    from reelign import cli

    for command in cli.app.registered_commands:
        code, out, _ = reelign(command.name, "--help")
        assert code == 0
        assert f"reelign {command.name} [OPTIONS]" in out


def test_the_version(reelign: Call) -> None:
    import reelign as package

    assert reelign("--version")[:2] == (0, f"reelign {package.__version__}\n")


def test_an_input_error_is_one_sentence_and_exit_code_2(reelign: Call, tmp_path: Path) -> None:
    code, out, err = reelign("align", tmp_path / "nowhere.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("reelign: there is no recipe at")
    assert err.count("\n") == 1


def test_debug_shows_where_an_input_error_came_from(tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN, "--debug", "config", tmp_path / "nowhere.yaml"], capture_output=True, text=True, check=False
    )
    assert "Traceback" in done.stderr
    assert "BadConfig: there is no recipe" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("words", [("nonsense",), ("align",), ("config", "--nonsense")])
def test_wrong_usage_is_exit_code_2(reelign: Call, words: tuple[str, ...]) -> None:
    code, out, err = reelign(*words)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_align_runs_a_recipe_refuses_to_repeat_it_and_resumes(reelign: Call, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "toy"
    code, out, err = reelign("align", recipe)
    assert code == 0, err
    assert str(folder / "final") in out
    assert (folder / "report.html").is_file()
    code, _, err = reelign("align", recipe)
    assert code == 2
    assert "already holds a run; go on with --resume" in err
    assert reelign("align", recipe, "--resume")[0] == 0
    assert reelign("report", folder)[0] == 0


def test_a_dry_run_checks_and_computes_nothing(reelign: Call, recipe: Path, tmp_path: Path) -> None:
    code, out, _ = reelign("align", recipe, "--dry-run", "--set", "stages.0.steps=4")
    assert code == 0
    assert "fine; 1 stage (sft), settings " in out
    assert not (tmp_path / "runs").exists()
    code, _, err = reelign("align", recipe, "--dry-run", "--set", "stages.0.stepz=4")
    assert code == 2
    assert "stages.0.stepz: there is no such key (did you mean 'steps'?)" in err


def test_ctrl_c_saves_and_exits_130(recipe: Path, tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [BIN, "align", recipe, "--set", "stages.0.steps=100000", "--set", "run.save_every=100000"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        rows = tmp_path / "runs" / "toy" / "metrics.jsonl"
        deadline = time.monotonic() + 60
        while not rows.exists() and time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "saved after step" in err
    assert "Traceback" not in err
    assert list((tmp_path / "runs" / "toy" / "checkpoints").glob("sft-*/state.json"))


def test_config_prints_every_value_with_its_origin(reelign: Call, recipe: Path) -> None:
    code, out, _ = reelign("config", recipe, "--set", "run.seed=5")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines()}
    assert rows["run.seed"] == ["run.seed", "5", "--set"]
    assert rows["stages.0.steps"] == ["stages.0.steps", "3", "recipe"]
    assert rows["stages.0.learner.warmup"] == ["stages.0.learner.warmup", "0", "default"]
    code, out, _ = reelign("config", recipe, "--json")
    assert json.loads(out)["stages"][0]["method"]["caption_dropout"] == 0.1


def test_parts_are_listed_for_programs_and_people(reelign: Call) -> None:
    code, out, _ = reelign("parts", "--json")
    rows = json.loads(out)
    assert code == 0
    kinds = {"method", "module", "backbone", "reward", "metric", "model", "adapter", "dataset", "stage", "sink"}
    assert {row["kind"] for row in rows} == kinds
    assert all(row.keys() == {"kind", "name", "about"} and row["about"] for row in rows)
    assert "grpo" in reelign("parts", "method")[1]
    code, _, err = reelign("parts", "methods")
    assert code == 2
    assert "no kind called 'methods' (did you mean 'method'?); available: method, module" in err


def test_a_part_has_a_page_with_every_setting(reelign: Call) -> None:
    code, out, _ = reelign("parts", "reward", "degraded")
    assert code == 0
    assert out.startswith("reward degraded\n\nAnother reward, made worse on purpose")
    assert "  noise\n      number, >= 0; default 0.1\n      Standard deviation of an error" in out
    assert "There is nothing to set." in reelign("parts", "reward", "playground_attributes")[1]
    page = json.loads(reelign("parts", "stage", "online", "--json")[1])
    rewards = next(each for each in page["settings"] if each["name"] == "rewards")
    assert (rewards["kind"], rewards["many"], rewards["default"]) == ("reward", True, None)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("reward", "degradd"),
            "no reward called 'degradd' (did you mean 'degraded'?); available: degraded, ",
        ),
        (("reward", "nope"), "no reward called 'nope'; available: degraded, "),
        (("nope",), "no kind called 'nope'; available: method, module, "),
        (("reward", "diversity"), "no reward called 'diversity': that is a metric.\n"),
        (("metric", "wan"), "no metric called 'wan': that is a model.\n"),
        (
            ("reward", "nobodys_lab.motion"),
            "no reward at 'nobodys_lab.motion': there is no module 'nobodys_lab'; install ",
        ),
    ],
)
def test_a_part_that_is_not_there_is_refused_in_one_sentence(
    reelign: Call, words: tuple[str, ...], sentence: str
) -> None:
    code, out, err = reelign("parts", *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"reelign: {sentence}")
    assert err.count("\n") == 1
    assert ". " not in err


def test_a_page_shows_its_tables_as_columns(reelign: Call) -> None:
    lines = reelign("parts", "dataset", "clip_folder")[1].splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("layout"))
    assert lines[at].split() == ["layout", "files"]
    assert set(lines[at + 1]) == {"-", " "}
    assert lines[at + 2].startswith("same stem  `a.mp4` + `a.txt`")
    assert not any("|" in line for line in lines[: at + 6])


def test_the_reference_says_what_the_code_says() -> None:
    for name, content in _pages.reference().items():
        path = ROOT / "docs" / "reference" / name
        assert path.read_text(encoding="utf-8") == content, "reelign parts --write docs/reference"
    assert {path.name for path in (ROOT / "docs" / "reference").iterdir()} == set(_pages.reference())


def test_the_reference_can_be_written(reelign: Call, tmp_path: Path) -> None:
    code, out, _ = reelign("parts", "--write", tmp_path / "new")
    assert code == 0
    assert {Path(line).name for line in out.splitlines()} == set(_pages.reference())
    assert (tmp_path / "new" / "reward.md").read_text(encoding="utf-8") == _pages.reference()["reward.md"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("reelign align --no", "--no-outside-parts"),
        ("reelign parts me", "metric"),
        ("reelign parts method gr", "grpo_guard"),
        ("reelign score x.mp4 -r playground_mo", "playground_motion"),
        ("reelign score x.mp4 --metric div", "diversity"),
    ],
)
def test_the_shell_completes_commands_and_parts(words: str, found: str) -> None:
    environment = {**os.environ, "_REELIGN_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": words}
    done = subprocess.run([BIN], env=environment, capture_output=True, text=True, check=False)
    assert found in done.stdout, done.stderr


@pytest.fixture
def outsider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is there once the part `outsider` has run."""
    (tmp_path / "outsider.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nraise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "ran"
    refuse_outside(False)


@pytest.mark.parametrize("words", [("config",), ("align", "--dry-run"), ("evaluate", "playground", "--recipe")])
def test_a_recipe_can_be_looked_at_without_running_what_it_names(
    reelign: Call, recipe: Path, outsider: Path, words: tuple[str, ...]
) -> None:
    given = ("--set", "stages.0.method=outsider:build")
    code, out, err = reelign(*words, recipe, "--set", "stages.0.dataset=playground", *given, "--no-outside-parts")
    assert (code, out) == (2, "")
    assert err.startswith("reelign: stages.0.method: the method 'outsider:build' is code from outside Reelign")
    assert not outsider.exists()
    code, _, err = reelign(*words, recipe, *given)
    assert code == 2
    assert "the method 'outsider:build' could not be imported: SystemExit: 0 (" in err
    assert outsider.exists()


def test_so_can_a_bake_off_and_what_is_scored(reelign: Call, outsider: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("entries: [{label: a, stage: {method: {name: 'outsider:build'}}}]")
    code, _, err = reelign("bakeoff", tmp_path / "spec.yaml", "--no-outside-parts")
    assert code == 2
    assert "entries.0.stage.method: the method 'outsider:build' is code from outside" in err
    code, _, err = reelign("score", "x.mp4", "-p", "a", "-r", "outsider:build", "--no-outside-parts")
    assert code == 2
    assert "the reward 'outsider:build' is code from outside" in err
    assert not outsider.exists()


QUICK = {
    "names": "align nowhere.yaml",
    "keys": "align toy.yaml --set run.nam=3",
    "parts": "config toy.yaml --set stages.0.method=sftt",
    "data": "align toy.yaml --set stages.0.dataset={name:\\ clip_folder,path:\\ nowhere}",
    "run": "align toy.yaml --resume",
    "model": "sample nowhere prompt",
    "suffix": "sample playground prompt -o out.gif",
    "video": "score nowhere.mp4 -p prompt -r playground_motion",
    "report": "report nowhere",
    "module": "align toy.yaml --set stages.0.method=nobodys_lab.methods:Nope",
    "judge": "score x.mp4 -p prompt -r nobodys_lab.rewards:Nope",
    "list": "parts",
    "card": "playground info",
    "page": "parts method grpo",
}


def _work(line: str, folder: Path) -> tuple[int, float, str, subprocess.CompletedProcess[str]]:
    """Exit code, seconds of its own, what it imported of the heavy, and all else of a command in a new process."""
    program = (
        "import sys, time; sys.argv = ['reelign', *sys.argv[1:]]\nfrom reelign.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = [n for n in ('torch', 'numpy', 'scipy', 'av') if n in sys.modules]\n"
        "print(code or 0, time.process_time(), heavy)"
    )
    words = [sys.executable, "-c", program, *shlex.split(line)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=folder, env=ENVIRONMENT)
    code, seconds, heavy = done.stdout.splitlines()[-1].split(maxsplit=2)
    return int(code), float(seconds), heavy, done


@pytest.mark.parametrize("line", QUICK.values(), ids=QUICK)
def test_what_names_and_paths_tell_is_told_within_a_second_of_work(recipe: Path, line: str) -> None:
    code, seconds, heavy, done = _work(line, recipe.parent)
    assert (code, heavy) == (0 if line.startswith(("parts", "playground")) else 2, "[]"), done.stderr
    assert seconds < 1  # of its own; a busy machine may take longer by the clock


def test_so_is_that_a_run_is_finished_and_how_it_goes_on(reelign: Call, recipe: Path, tmp_path: Path) -> None:
    assert reelign("align", recipe)[0] == 0
    folder = tmp_path / "runs" / "toy"
    code, seconds, heavy, done = _work("align toy.yaml --resume", tmp_path)
    assert (code, heavy) == (0, "[]"), done.stderr
    assert seconds < 1
    assert done.stderr == (
        f"{folder} is finished already; to train on, resume it with more steps than 3 in its last stage, sft, as in "
        "--set stages.0.steps=6.\n"
    )
    assert done.stdout.splitlines()[:-1] == [f"model   {folder / 'final'}", f"report  {folder / 'report.html'}"]
    # In doubt the driver looks: here at files that are not as they were, which it makes again.
    (folder / "final.json").unlink()
    code, out, err = reelign("align", recipe, "--resume")
    assert (code, "is finished already" in err) == (0, False)
    assert str(folder / "final") in out
    assert "is finished already" in reelign("align", recipe, "--resume", "--set", "runtime.threads=1")[2]


def test_columns_of_numbers_stand_to_the_right_and_others_to_the_left() -> None:
    rows = [("steps", 300, 0.5), ("path", "a/b", None), ("lr", 3e-4, 12.0)]
    assert table(("what", "value", "mean"), rows).splitlines() == [
        "what   value   mean",
        "-----  ------  ----",
        "steps  300      0.5",
        "path   a/b        -",
        "lr     0.0003    12",
    ]


def test_only_what_is_wrong_is_logged() -> None:
    handlers, level = list(logging.root.handlers), logging.root.level
    logging.root.handlers.clear()
    try:
        _console.setup(debug=False)
        assert not logging.getLogger("reelign").isEnabledFor(logging.INFO)
        assert logging.getLogger("reelign").isEnabledFor(logging.WARNING)
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


def test_an_error_of_the_system_is_a_sentence(reelign: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(_pages, "write", full)
    code, _, err = reelign("parts", "--write", "there")
    assert (code, err) == (2, "reelign: cannot use 'there': No space left on device; `reelign --debug` shows where.\n")


def test_playground_info(reelign: Call) -> None:
    code, out, _ = reelign("playground", "info", "--json")
    found = json.loads(out)
    assert code == 0
    assert {"folder", "parameters", "frames", "height", "width", "fps", "shift", "text_length"} <= found.keys()
    made = {name: found[name] for name in ("transformer", "text_encoder", "vae")}
    assert found["parameters"] == sum(made.values())
    readme, page = (re.sub(r"\s+", " ", (ROOT / name).read_text()) for name in ("README.md", "docs/playground.md"))
    network, whole = (f"{n / 1e6:.1f} million" for n in (made["transformer"], found["parameters"]))
    assert f"{whole} weights, {network} of them in the transformer that trains" in readme
    for name, count in made.items():
        assert re.search(rf"`{name}/` \| [^|]* \| {count / 1e6:.1f} million", page)
    rows = dict(line.split(maxsplit=1) for line in reelign("playground", "info")[1].splitlines())
    assert rows["parameters"] == f"{found['parameters']:,} weights, of which:"
    assert rows["transformer"] == f"{made['transformer']:,}"


@pytest.mark.slow
def test_verify_reports_every_check(reelign: Call) -> None:
    code, out, _ = reelign("verify", "--json")
    rows = json.loads(out)
    assert code == 0
    assert len(rows) > 30
    assert all(row["passed"] is True for row in rows)


def test_verify_exits_1_when_a_check_fails(reelign: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from reelign import verify

    class Failed:
        passed = False

        def to_dict(self) -> dict[str, Any]:
            return {"name": "two and two", "passed": False}

    monkeypatch.setattr(verify, "run", lambda: [Failed()])
    monkeypatch.setattr(verify, "table", lambda results: "two and two: FAILED")
    code, out, _ = reelign("verify")
    assert code == 1
    assert "FAILED" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("sample", "nowhere", "a"), "'nowhere' is no pipeline folder"),
        (
            ("sample", "playground", "a", "--steps", "1"),
            "reelign: --steps: input should be greater than or equal to 2 (given: 1)",
        ),
        (
            ("sample", "playground", "a", "--guidance", "-1"),
            "reelign: --guidance: input should be greater than or equal to 0",
        ),
        (("score", "x.mp4", "-p", "a"), "score needs --reward or --metric; rewards: degraded, playground_attributes"),
        (("score", "nowhere.mp4", "-p", "a", "-r", "playground_motion"), "there is no video at 'nowhere.mp4'"),
        (("score", "nowhere.mp4", "-r", "playground_motion"), "score needs --prompt, or a .csv with the columns file,"),
        (("sample", "playground", "a", " "), "one of the prompts is empty; say what the video should show."),
        (("bakeoff", "nowhere.yaml"), "there is no recipe at 'nowhere.yaml'"),
        (("score", __file__, "-p", "a", "-m", "diversity", "-m", "diversity"), "two metrics give 'diversity'"),
        (
            ("score", __file__, "-p", "a", "-m", "tests.parts.linear_reward:build"),
            "is a reward, not a metric",
        ),
        (("score", "x.mp4", "-p", "a", "-r", "playground_moton"), "did you mean 'playground_motion'?"),
        (("evaluate", "playground", "--recipe", "nowhere.yaml"), "there is no recipe at 'nowhere.yaml'"),
        (("compare", "nowhere", "elsewhere"), "nowhere"),
        (("report", "nowhere"), "nowhere"),
    ],
)
def test_what_commands_cannot_do_is_said_in_a_sentence(reelign: Call, words: tuple[str, ...], sentence: str) -> None:
    code, out, err = reelign(*words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


def test_compare_reads_two_runs(reelign: Call, recipe: Path, tmp_path: Path) -> None:
    metrics = "metrics: ['tests.parts.mean_level:build']"
    evaluate = f"evaluate={{dataset: {DATA['name']}, {metrics}, videos: 0, samplers: [{{steps: 2}}]}}"
    for name in ("first", "second"):
        code, _, err = reelign("align", recipe, "--set", f"run.name={name}", "--set", evaluate)
        assert code == 0, err
    code, out, err = reelign("compare", tmp_path / "runs" / "first", tmp_path / "runs" / "second", "--json")
    assert code == 0, err
    assert "level" in out
    json.loads(out)
