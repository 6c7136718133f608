"""The command `sample`: the model's own size or the one asked for, and options that are refused by name."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reelign import video

Call = Callable[..., tuple[int, str, str]]


def test_sample_writes_mp4s_and_score_reads_them(reelign: Call, tmp_path: Path) -> None:
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


def test_a_samplers_defaults_are_those_of_a_recipes_evaluation() -> None:
    from reelign.cli import sample
    from reelign.stages.evaluate import Config

    own = Config.model_fields["samplers"].default[0]
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


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--frames", 18, "--frames: 18 does not fit; it must be 1 + 4k, such as 17 or 21."),
        ("--frames", 0, "--frames: input should be greater than or equal to 1 (given: 0)."),
        ("--height", 42, "--height: 42 does not fit; it must be a multiple of 8, such as 40 or 48."),
        ("--width", 12, "--width: 12 does not fit; it must be a multiple of 8, such as 8 or 16."),
        ("--fps", 0, "--fps: input should be greater than 0 (given: 0.0)."),
        ("--shift", 0, "--shift: input should be greater than or equal to 0.01 (given: 0.0)."),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_option_with_the_nearest_that_can(
    reelign: Call, tmp_path: Path, option: str, value: float, sentence: str
) -> None:
    code, out, err = reelign("sample", "playground", "A ball.", "-o", tmp_path / "out.mp4", option, value)
    assert (code, out, err) == (2, "", f"reelign: {sentence}\n")


def test_exact_colours_are_enlarged_where_a_scale_is_asked_for(reelign: Call, tmp_path: Path) -> None:
    few = ("sample", "playground", "A ball.", "--frames", 5, "--width", 16, "--steps", 2, "--lossless")
    assert reelign(*few, "-o", tmp_path / "own.mp4")[0] == 0
    assert reelign(*few, "-o", tmp_path / "large.mp4", "--scale", 3)[0] == 0
    own, large = (video.read(tmp_path / name).frames for name in ("own.mp4", "large.mp4"))
    assert own.shape[-2:] == (32, 16)
    assert torch.equal(large, own.repeat_interleave(3, dim=-1).repeat_interleave(3, dim=-2))
