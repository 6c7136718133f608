"""The command line: exit codes, one sentence for input errors, results that programs can read."""

import inspect
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from reelign.cli import _pages
from reelign.parts import refuse_outside

Call = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent / "reelign"
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
    assert "fine; 1 stages (sft), settings " in out
    assert not (tmp_path / "runs").exists()
    code, _, err = reelign("align", recipe, "--dry-run", "--set", "stages.0.stepz=4")
    assert code == 2
    assert "stages.0.stepz: there is no such key (did you mean 'steps'?)" in err


def test_ctrl_c_saves_and_exits_130(recipe: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
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
    kinds = {"method", "module", "backbone", "reward", "metric", "model", "dataset", "stage"}
    assert {row["kind"] for row in rows} == kinds
    assert all(row.keys() == {"kind", "name", "about"} and row["about"] for row in rows)
    assert "grpo" in reelign("parts", "method")[1]
    code, _, err = reelign("parts", "methods")
    assert code == 2
    assert "no kind called 'methods' (did you mean 'method'?); available: method, module" in err


def test_a_part_has_a_page_with_every_setting(reelign: Call) -> None:
    code, out, _ = reelign("parts", "reward", "worn")
    assert code == 0
    assert out.startswith("reward worn\n\nAnother reward, made worse on purpose")
    assert "  noise\n      number, >= 0; default 0.1\n      Standard deviation of an error" in out
    assert "There is nothing to set." in reelign("parts", "reward", "playground_attributes")[1]
    page = json.loads(reelign("parts", "stage", "online", "--json")[1])
    rewards = next(each for each in page["settings"] if each["name"] == "rewards")
    assert (rewards["kind"], rewards["many"], rewards["default"]) == ("reward", True, None)
    code, _, err = reelign("parts", "reward", "wron")
    assert (code, "did you mean 'worn'?" in err) == (2, True)


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
    "list": "parts",
    "page": "parts method grpo",
}


@pytest.mark.parametrize("line", QUICK.values(), ids=QUICK)
def test_what_names_and_paths_tell_is_told_within_a_second_of_work(recipe: Path, line: str) -> None:
    program = (
        "import sys, time; sys.argv = ['reelign', *sys.argv[1:]]\nfrom reelign.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = [n for n in ('torch', 'numpy', 'scipy', 'av') if n in sys.modules]\n"
        "print(code or 0, time.process_time(), heavy)"
    )
    words = [sys.executable, "-c", program, *shlex.split(line)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=recipe.parent)
    code, seconds, heavy = done.stdout.splitlines()[-1].split(maxsplit=2)
    assert (int(code), heavy) == (0 if line.startswith("parts") else 2, "[]"), done.stderr
    assert float(seconds) < 1  # of its own; a busy machine may take longer by the clock


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
    assert found["parameters"] > 100_000


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


def test_sample_writes_mp4s_and_score_reads_them(reelign: Call, tmp_path: Path) -> None:
    from reelign import video

    prompt = "A small red circle moves to the right."
    card = json.loads(reelign("playground", "info", "--json")[1])
    code, out, err = reelign("sample", "playground", prompt, "-o", tmp_path / "one.mp4", "--steps", 2, "--scale", 1)
    assert code == 0, err
    assert out == f"{tmp_path / 'one.mp4'}\n"
    frames, fps = video.read(tmp_path / "one.mp4")
    assert (tuple(frames.shape), fps) == ((card["frames"], 3, card["height"], card["width"]), card["fps"])
    code, out, err = reelign("sample", "playground", prompt, "A blue star.", "-o", tmp_path / "two.mp4", "--steps", 2)
    assert [Path(line).name for line in out.splitlines()] == ["two-1.mp4", "two-2.mp4"]
    assert video.read(tmp_path / "two-1.mp4")[0].shape[-1] == 256
    reward = "tests.parts.linear_reward:build"
    code, out, err = reelign(
        "score", tmp_path / "one.mp4", tmp_path / "two-1.mp4", "-p", prompt, "-r", reward, "--json"
    )
    assert code == 0, err
    rows = json.loads(out)
    assert [row["video"] for row in rows] == [str(tmp_path / "one.mp4"), str(tmp_path / "two-1.mp4")]
    assert rows[0]["linear"] == pytest.approx(frames.mean().item(), abs=1e-6)


def test_sample_makes_the_models_own_size_or_the_one_asked_for_and_says_it_first(reelign: Call, tmp_path: Path) -> None:
    from reelign import video

    out = tmp_path / "ball.mp4"
    code, _, err = reelign("sample", "playground", "A ball.", "-o", out, "--steps", 2, "--lossless")
    assert (code, err.splitlines()[0]) == (0, "9 frames of 32 x 32 at 8 fps, 2 steps, shift 3, guidance 3")
    asked = ("--frames", 5, "--width", 16, "--fps", 4, "--guidance", 1, "--shift", 2)
    code, _, err = reelign("sample", "playground", "A ball.", "-o", out, "--steps", 2, "--lossless", *asked)
    assert code == 0, err
    said, *lines = err.splitlines()
    assert said == "5 frames of 32 x 16 at 4 fps, 2 steps, shift 2, guidance 1; 1 existing video is replaced"
    assert lines[0] == "sample  0/2"
    assert lines[-1].startswith("sample  2/2")
    frames, fps = video.read(out)
    assert (tuple(frames.shape), fps) == ((5, 3, 32, 16), 4)
    code, _, err = reelign("sample", "playground", "A ball.", "-o", out, "--frames", 6)
    assert (code, "model.size: 6 x 32 x 32 does not fit" in err) == (2, True)


def test_a_samplers_defaults_are_those_of_a_recipes_evaluation() -> None:
    from reelign.cli import sample
    from reelign.stages.evaluate import Config

    own = Config.model_fields["sampler"].default
    help_of = {name: parameter.default.help for name, parameter in inspect.signature(sample.command).parameters.items()}
    assert f"default: {own.steps}," in help_of["steps"]
    assert f"else {own.shift:g}," in help_of["shift"]
    assert f"default: {own.guidance:g}," in help_of["guidance"]


@pytest.mark.parametrize("name", ["out.gif", "out.webm", "out.MP4", "out", "folder.mp4"])
def test_sample_refuses_names_that_it_cannot_write_before_it_loads_a_model(
    reelign: Call, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder.mp4").mkdir()
    code, _, err = reelign("sample", "playground", "A ball.", "-o", tmp_path / name)
    assert code == 2
    assert err.endswith("is no name of a video; videos are written as .mp4.\n")


def test_score_reads_a_table_of_files_and_prompts(reelign: Call, tmp_path: Path) -> None:
    from reelign import video

    for index, level in enumerate((0.25, 0.75)):
        (tmp_path / "clips").mkdir(exist_ok=True)
        video.write(tmp_path / "clips" / f"{index}.mp4", torch.full((3, 3, 16, 16), level), 8, lossless=True)
    table = tmp_path / "table.csv"
    table.write_text(f'file,prompt\nclips/0.mp4,"dark, very"\n{tmp_path}/clips/1.mp4,bright\n')
    code, out, err = reelign("score", table, "-r", "tests.parts.linear_reward", "--json")
    assert code == 0, err
    rows = json.loads(out)
    assert [row["prompt"] for row in rows] == ["dark, very", "bright"]
    assert [row["video"] for row in rows] == [str(tmp_path / "clips" / f"{i}.mp4") for i in range(2)]
    assert [row["linear"] for row in rows] == pytest.approx([0.25, 0.75], abs=0.01)
    assert "prompt" in reelign("score", table, "-r", "tests.parts.linear_reward")[1].splitlines()[0]


@pytest.mark.parametrize(
    ("text", "more", "sentence"),
    [
        ("file,prompt\n", (), "table.csv has no rows; write a file and its prompt in each."),
        ("file,prompt\nnowhere.mp4,a\n", (), "there is no video at"),
        ("video,prompt\na.mp4,a\n", (), "line 2: "),
        ("file,prompt\na.mp4,\n", (), "line 2: 'prompt' is ''; it must be a text that is not empty."),
        ("file,prompt\na.mp4,a\n", ("-p", "b"), "says files and prompts; give it alone, without --prompt."),
        ("file,prompt\na.mp4,a\n", ("b.mp4",), "says files and prompts; give it alone, without --prompt."),
    ],
)
def test_a_table_that_cannot_be_scored(
    reelign: Call, tmp_path: Path, text: str, more: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "table.csv").write_text(text)
    code, _, err = reelign("score", tmp_path / "table.csv", *more, "-r", "playground_motion")
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1


def test_scores_that_do_not_apply_are_null(reelign: Call, tmp_path: Path) -> None:
    from reelign import video
    from reelign.playground import corpora, tables

    shown = corpora.instruction(1, seed=1)
    video.write(tmp_path / "clip.mp4", shown.clips[0], tables.FPS, lossless=True)
    names = ("-r", "playground_attributes", "-r", "playground_motion", "-m", "playground_adherence")
    code, out, err = reelign("score", tmp_path / "clip.mp4", "-p", shown.captions[0], *names, "--json")
    assert code == 0, err

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    (row,) = json.loads(out, parse_constant=refuse)
    assert len(row) > 3
    assert all(value is None or isinstance(value, float | str) for value in row.values())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("sample", "nowhere", "a"), "'nowhere' is no pipeline folder"),
        (("sample", "playground", "a", "--steps", "1"), "steps: input should be greater than or equal to 2 (given: 1)"),
        (("sample", "playground", "a", "--guidance", "-1"), "guidance: input should be greater than or equal to 0"),
        (("score", "x.mp4", "-p", "a"), "score needs --reward or --metric; rewards: playground_attributes"),
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


def test_evaluate_needs_a_recipe_that_measures(reelign: Call, recipe: Path) -> None:
    code, _, err = reelign("evaluate", "playground", "--recipe", recipe)
    assert code == 2
    assert "has no `evaluate`; add one that names a dataset and metrics" in err


def test_compare_reads_two_runs(reelign: Call, recipe: Path, tmp_path: Path) -> None:
    metrics = "metrics: ['tests.parts.mean_level:build']"
    evaluate = f"evaluate={{dataset: {DATA['name']}, {metrics}, videos: 0, sampler: {{steps: 2}}}}"
    for name in ("first", "second"):
        code, _, err = reelign("align", recipe, "--set", f"run.name={name}", "--set", evaluate)
        assert code == 0, err
    code, out, err = reelign("compare", tmp_path / "runs" / "first", tmp_path / "runs" / "second", "--json")
    assert code == 0, err
    assert "level" in out
    json.loads(out)
