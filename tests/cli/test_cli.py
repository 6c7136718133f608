"""The command line: exit codes, one sentence for input errors, results that programs can read."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

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
    assert "stages.0.stepz: there is no such key. Did you mean 'steps'?" in err


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
    assert "no kind called 'methods'. Available: method, module" in err


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
        (("score", "nowhere.mp4", "-p", "a", "-r", "playground_motion"), "there is no video at nowhere.mp4"),
        (("score", "x.mp4", "-p", "a", "-r", "playground_moton"), "Did you mean 'playground_motion'?"),
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
