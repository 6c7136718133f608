"""The command `score`: videos and tables of them, and what keeps one from being scored."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reelign import video
from reelign.playground.world import corpora, tables

Call = Callable[..., tuple[int, str, str]]


def test_score_reads_a_table_of_files_and_prompts(reelign: Call, tmp_path: Path) -> None:
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


def test_a_table_may_say_what_a_video_began_from(reelign: Call, tmp_path: Path) -> None:
    for name, level in (("a", 0.25), ("b", 0.75)):
        video.write(tmp_path / f"{name}.mp4", torch.full((3, 3, 16, 16), level), 8, lossless=True)
    table = tmp_path / "table.csv"
    table.write_text("file,prompt,first_frame\na.mp4,grey,a.mp4\na.mp4,grey,b.mp4\n")
    code, out, err = reelign("score", table, "-r", "tests.parts.opening:Reward", "--json")
    assert code == 0, err
    assert [row["opening"] for row in json.loads(out)] == pytest.approx([1, 0.5], abs=0.01)
    table.write_text("file,prompt,first_frame\na.mp4,grey,c.mp4\n")
    code, _, err = reelign("score", table, "-r", "tests.parts.opening:Reward")
    assert code == 2
    assert "line 2: there is no first_frame at" in err
    table.write_text("file,prompt,first_frame\na.mp4,grey,\n")
    code, _, err = reelign("score", table, "-r", "tests.parts.opening:Reward")
    assert code == 2
    assert (
        "line 2: the reward 'tests.parts.opening:Reward' cannot judge by a prompt: 'grey' gives no first_frame" in err
    )


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
    shown = corpora.instruction(1, seed=1)
    video.write(tmp_path / "clip.mp4", shown.clips[0], tables.FPS, lossless=True)
    names = ("-r", "playground_attributes", "-r", "playground_motion", "-m", "playground")
    code, out, err = reelign("score", tmp_path / "clip.mp4", "-p", shown.captions[0], *names, "--json")
    assert code == 0, err

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    (row,) = json.loads(out, parse_constant=refuse)
    assert len(row) > 3
    assert all(value is None or isinstance(value, float | str) for value in row.values())


@pytest.fixture(scope="module")
def clip() -> tuple[torch.Tensor, str]:
    """A clip of the playground, and its caption."""
    shown = corpora.instruction(1, seed=1)
    return shown.clips[0], shown.captions[0]


def test_a_measure_that_does_not_apply_is_a_dash(reelign: Call, clip: tuple[torch.Tensor, str], tmp_path: Path) -> None:
    video.write(tmp_path / "a.mp4", clip[0], tables.FPS, lossless=True)
    code, out, err = reelign("score", tmp_path / "a.mp4", "-p", clip[1], "-m", "diversity", "-r", "playground_motion")
    assert code == 0, err
    assert out.splitlines()[0].split() == ["video", "playground_motion", "diversity"]
    assert out.splitlines()[2].split()[2] == "-"


ENLARGED = (
    "the reward 'playground_motion' reads 9 frames of 32 x 32 only, but this video has 9 frames of 64 x 64; write it "
    "with `reelign sample --lossless` and no --scale, or leave that measure out."
)


def test_an_enlarged_clip_is_refused_by_file_and_measure_with_a_remedy(
    reelign: Call, clip: tuple[torch.Tensor, str], tmp_path: Path
) -> None:
    video.write(tmp_path / "a.mp4", clip[0], tables.FPS, lossless=True)
    video.write(tmp_path / "b.mp4", clip[0], tables.FPS, scale=2)
    files = (tmp_path / "a.mp4", tmp_path / "b.mp4")
    code, out, err = reelign("score", *files, "-p", clip[1], "-m", "diversity", "-r", "playground_motion")
    assert (code, out, err) == (2, "", f"reelign: {files[1]}: {ENLARGED}\n")
    (tmp_path / "t.csv").write_text(f"file,prompt\na.mp4,{clip[1]}\nb.mp4,{clip[1]}\n")
    code, out, err = reelign("score", tmp_path / "t.csv", "-r", "playground_motion")
    assert (code, out, err) == (2, "", f"reelign: {tmp_path}/t.csv, line 3: {ENLARGED}\n")


def test_what_is_wrong_with_a_row_is_said_with_its_line_before_anything_is_scored(
    reelign: Call, clip: tuple[torch.Tensor, str], tmp_path: Path
) -> None:
    video.write(tmp_path / "a.mp4", clip[0], tables.FPS, lossless=True)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "t.csv").write_text(f"file,prompt\na.mp4,{clip[1]}\nbroken.mp4,a dog barks\n")
    code, _, err = reelign("score", tmp_path / "t.csv", "-r", "playground_motion")
    assert code == 2
    assert err.startswith(
        f"reelign: {tmp_path}/t.csv, line 3: the reward 'playground_motion' cannot judge by a prompt: "
    )
    (tmp_path / "t.csv").write_text(f"file,prompt\na.mp4,{clip[1]}\nbroken.mp4,{clip[1]}\n")
    code, _, err = reelign("score", tmp_path / "t.csv", "-r", "playground_motion")
    assert code == 2
    assert err.startswith(f"reelign: {tmp_path}/t.csv, line 3: {tmp_path}/broken.mp4")
    (tmp_path / "t.csv").write_text(f"file,prompt\nnowhere.mp4,{clip[1]}\n")
    code, _, err = reelign("score", tmp_path / "t.csv", "-r", "playground_motion")
    assert err == f"reelign: {tmp_path}/t.csv, line 2: there is no video at '{tmp_path}/nowhere.mp4'; check the path.\n"


def test_a_reward_that_fails_on_a_row_is_named_with_it(
    reelign: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.parts import linear_reward

    def fail(self: object, videos: object, prompts: object) -> None:
        raise RuntimeError("no light")

    monkeypatch.setattr(linear_reward.Linear, "__call__", fail)
    video.write(tmp_path / "a.mp4", torch.rand(3, 3, 16, 16), 8, lossless=True)
    (tmp_path / "t.csv").write_text("file,prompt\na.mp4,a\n")
    code, _, err = reelign("score", tmp_path / "t.csv", "-r", "tests.parts.linear_reward:build")
    assert code == 2
    assert err.startswith(
        f"reelign: {tmp_path}/t.csv, line 2: the reward 'tests.parts.linear_reward:build' raised Runt"
    )


def test_the_examples_of_the_commands_page_run_as_printed(
    reelign: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^## score\n.*?^```sh\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    (sample,) = re.findall(r"^reelign (sample .* -o exact\.mp4)$", page, flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    for line in [f"reelign {sample} --steps 2", *block.splitlines()]:
        if line.startswith("printf"):
            subprocess.run(line, shell=True, check=True)
        elif "runs/demo" not in line:  # which reads what the demo made
            code, _, err = reelign(*shlex.split(line)[1:])
            assert code == 0, f"{line}: {err}"
