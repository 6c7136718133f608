"""Reelign from Python, as a notebook user types it."""

import signal
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import reelign
from reelign import parts, video
from reelign.driver import Interrupted
from reelign.face import scoring, typed
from reelign.playground.world import tables

PROMPT = "A large red circle moves left slowly on a teal background."
SMALL = {
    "run.name": "small",
    "stages.0.steps": 2,
    "stages.0.prompts": 2,
    "stages.0.group": 2,
    "stages.0.sampler.steps": 4,
    "stages.0.method.among": 2,
    "stages.0.method.tail": 1,
    "evaluate.members": 2,
    "evaluate.samplers.0.steps": 2,
    "evaluate.dataset.prompts": 2,
}
GRPO = Path(__file__).parents[1] / "recipes" / "grpo.yaml"


class Level(reelign.PartConfig):
    """A reward in one class: the mean of the pixels."""

    scores: ClassVar = {"level": (0.0, 1.0)}
    version: ClassVar = "1"
    gain: float = 1.0

    def build(self) -> Any:
        return lambda videos, requests: {"level": self.gain * videos.frames.mean(dim=(1, 2, 3, 4))}


class Bounded(reelign.PartConfig):
    """One that has a score for latents of any size."""

    scores: ClassVar = {"bounded": (-1.0, 1.0)}
    version: ClassVar = "1"

    def build(self) -> Any:
        return lambda videos, requests: {"bounded": videos.frames.mean(dim=(1, 2, 3, 4)).tanh()}


class Seen:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[reelign.Event] = []

    def send(self, event: reelign.Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        """Nothing to put away."""


@pytest.fixture(scope="module")
def model() -> Any:
    return reelign.load("playground", device="cpu")


@pytest.fixture(scope="module")
def clips(model: Any) -> reelign.Shots:
    return reelign.sample(model, [PROMPT, "<script>A & B</script>"], seed=3, steps=2)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grey(*levels: float, side: int = 16) -> reelign.Shots:
    frames = torch.tensor(levels)[:, None, None, None, None].expand(-1, 3, 3, side, side)
    return reelign.Shots(frames.clone(), 8, tuple(f"grey {level}" for level in levels))


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(getattr(reelign, name) is not None for name in reelign.__all__)
    assert set(reelign.__all__) <= set(dir(reelign))
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        reelign.smaple  # type: ignore[attr-defined]  # noqa: B018


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(reelign.__file__).parent / "py.typed").is_file()


def test_the_same_seed_gives_the_clips_of_the_command(
    model: Any, clips: reelign.Shots, here: Path, reelign: Any
) -> None:
    code, _, err = reelign(
        "sample", "playground", PROMPT, "B", "-o", "a.mp4", "--seed", 3, "--steps", 2, "--lossless", "--guidance", 3
    )
    assert code == 0, err
    saved = clips.save("mine", lossless=True)
    assert saved[0].read_bytes() == Path("a-1.mp4").read_bytes()


def test_clips_say_what_they_are_and_cut_to_clips(clips: reelign.Shots) -> None:
    assert clips.frames.shape == (2, tables.FRAMES, 3, tables.HEIGHT, tables.WIDTH)
    assert (len(clips), clips.fps, clips.prompts[0]) == (2, tables.FPS, PROMPT)
    assert repr(clips) == "<2 clips of 9 frames of 32 x 32 at 8 fps>"
    assert torch.equal(clips[-1].frames, clips.frames[1:])
    assert clips[0:1].prompts == (PROMPT,)
    assert [len(each) for each in clips] == [1, 1]
    with pytest.raises(IndexError):
        clips[2]


def test_clips_show_themselves_with_their_prompts_as_text(clips: reelign.Shots) -> None:
    page = clips._repr_html_()
    assert page.count('<video src="data:video/mp4;base64,') == 2
    assert "<script>" not in page
    assert "&lt;script&gt;A &amp; B&lt;/script&gt;" in page


@pytest.mark.parametrize("side", [15, 301])
def test_clips_of_odd_sides_show_themselves_too(side: int) -> None:
    assert "data:video/mp4" in grey(0.5, side=side)._repr_html_()


def test_saved_clips_are_a_folder_to_train_on(here: Path) -> None:
    paths = grey(0.2, 0.6).save("my/clips", lossless=True)
    assert [path.as_posix() for path in paths] == ["my/clips/000.mp4", "my/clips/001.mp4"]
    assert Path("my/clips/001.txt").read_text() == "grey 0.6\n"
    frames, fps = video.read(paths[1])
    assert fps == 8
    torch.testing.assert_close(frames, grey(0.6).frames[0], atol=1 / 255, rtol=0)


@pytest.mark.parametrize(
    ("shape", "prompts", "sentence"),
    [
        ((1, 2, 4, 8, 8), ("a",), "give RGB in [0, 1] as floats of shape [clips, frames, 3, height, width]"),
        ((2, 2, 3, 8, 8), ("a",), "there are 2 clips and 1 prompts; give one prompt a clip."),
    ],
)
def test_what_is_no_clip_is_refused(shape: tuple[int, ...], prompts: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(reelign.UserError) as refused:
        reelign.Shots(torch.zeros(shape), 8, prompts)
    assert sentence in str(refused.value)


def test_scores_are_numbers_by_measure_a_table_of_text_and_one_of_html() -> None:
    found = reelign.score(grey(0.25, 0.75), rewards=[Level, "steady_motion"], metrics="diversity")
    assert list(found) == ["level", "steady_motion", "diversity"]
    assert found["level"] == pytest.approx((0.25, 0.75))
    assert found["diversity"] == (None, None)
    assert (found.mean("level"), found.mean("diversity")) == (pytest.approx(0.5), None)
    assert repr(found).splitlines()[2].split() == ["grey", "0.25", "0.25", "0", "-"]
    assert "<td>grey 0.25</td><td>0.25</td>" in found._repr_html_()


def test_clips_of_one_prompt_are_judged_together() -> None:
    alike = reelign.Shots(grey(0.25, 0.75, 0.5).frames, 8, ("a", "a", "b"))
    assert reelign.score(alike, metrics=["diversity"])["diversity"] == (pytest.approx(0.5), pytest.approx(0.5), None)


def test_files_are_scored_by_the_prompts_given(here: Path) -> None:
    paths = grey(0.25, 0.75).save("clips", lossless=True)
    found = reelign.score(paths, rewards={"name": Level, "gain": 0.5}, prompts="grey")
    assert dict(found) == dict(reelign.score(paths, rewards=Level(gain=0.5), prompts="grey"))
    assert found.clips == ("clips/000.mp4", "clips/001.mp4")
    assert found["level"] == pytest.approx((0.125, 0.375), abs=1e-3)
    assert reelign.score("clips/000.mp4", rewards=Level, prompts=["grey"])["level"] == pytest.approx((0.25,), abs=1e-3)


def test_a_reward_sees_what_a_clip_was_asked_to_begin_from(here: Path) -> None:
    for level in (0.25, 0.75):
        video.write(here / f"{level}.mp4", torch.full((1, 3, 4, 4), level), 8, lossless=True)
    asked = [reelign.Request("grey", given={"first_frame": here / f"{level}.mp4"}) for level in (0.25, 0.75)]
    framed = parts.build("model", parts.configure("model", "tests.parts.framed_model"), torch.device("cpu"))
    made = reelign.sample(framed, asked, steps=2)
    reward = "tests.parts.opening:Reward"
    assert reelign.score(made, rewards=reward)["opening"] == (1, 1)
    assert reelign.score(made[1], rewards=reward)["opening"] == (1,)
    assert reelign.score(made, rewards=reward, prompts=asked[::-1])["opening"] == pytest.approx((0.5, 0.5), abs=0.01)
    files = made.save("made", lossless=True)
    assert reelign.score(files, rewards=reward, prompts=asked[0])["opening"] == pytest.approx((1, 0.5), abs=0.01)
    assert reelign.score(made, metrics="diversity")["diversity"] == (None, None)  # the text is one, the prompts are two
    with pytest.raises(reelign.UserError, match="cannot judge by a prompt: 'grey' gives no first_frame; add one"):
        reelign.score(made, rewards=reward, prompts="grey")


def test_requests_of_other_texts_than_the_prompts_are_refused() -> None:
    with pytest.raises(reelign.UserError, match="the requests say something else than the prompts; give one a clip"):
        reelign.Shots(grey(0.5).frames, 8, ("a",), (reelign.Request("b"),))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"rewards": ["playground_motions"]}, "did you mean 'playground_motion'?"),
        ({"rewards": ["__main__:Lost"]}, "this session has no class of that name; run the cell that defines it"),
        ({}, "score needs a reward or a metric; rewards: degraded"),
        ({"rewards": [Level], "prompts": ["one"]}, "there are 2 clips and 1 prompts"),
        ({"rewards": [reelign.PartConfig]}, "no reward at 'reelign.settings': the module has no Config and no build"),
        ({"rewards": [Level, Level]}, "two rewards give 'level'"),
        ({"metrics": [Level]}, "is a reward, not a metric"),
        ({"rewards": [{"name": Level, "gian": 2}]}, "gian: there is no such key (did you mean 'gain'?)"),
        ({"rewards": ["playground_motion"]}, "reads 9 frames of 32 x 32 only, but this video has 3 frames of 16 x 16"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_sentence(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(reelign.UserError) as refused:
        reelign.score(reelign.Shots(grey(0.2, 0.6).frames, 8, (PROMPT, PROMPT)), **asked)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_frames_alone_are_no_clips() -> None:
    with pytest.raises(
        reelign.UserError, match=r"^a list is no clips; give those of `sample`, reelign\.Shots\(frames, "
    ):
        scoring._videos([torch.zeros(3, 3, 8, 8)])  # below the signature, which tests check


@pytest.mark.parametrize(
    ("load", "sentence"),
    [
        ({"model": "/nowhere"}, "'/nowhere' is no pipeline folder (no model_index.json)"),
        ({"precison": "fast"}, "precison: there is no such key (did you mean 'precision'?)"),
        ({"device": "tpu9"}, "runtime.device is 'tpu9', which cannot hold a tensor here"),
    ],
)
def test_a_model_that_is_not_there_is_refused_in_one_sentence(load: dict[str, Any], sentence: str) -> None:
    with pytest.raises(reelign.UserError) as refused:
        reelign.load(**load)
    assert sentence in str(refused.value)


def test_settings_of_the_model_are_taken(tiny_wan21: Path) -> None:
    size = {"frames": 5, "height": 32, "width": 32, "fps": 8.0}
    own = reelign.load(tiny_wan21, device="cpu", size=size, text_length=16, adapter={"name": "lora", "rank": 2})
    trains = [name for name, weight in own.experts[""].named_parameters() if weight.requires_grad]
    assert trains
    assert all("lora" in name for name in trains)
    assert reelign.sample(own, "a cat", steps=2, guidance=1.0).frames.shape == (1, 5, 3, 32, 32)


@pytest.mark.parametrize("prompts", [[], [" "], ["a", ""]])
def test_a_prompt_that_says_nothing_is_refused(model: Any, prompts: list[str]) -> None:
    with pytest.raises(reelign.UserError, match="say what each video should show"):
        reelign.sample(model, prompts)


def test_a_setting_of_the_sampler_is_refused_by_its_name(model: Any) -> None:
    with pytest.raises(reelign.UserError, match=r"^steps: input should be greater than or equal to 2"):
        reelign.sample(model, PROMPT, steps=1)


def test_sampling_leaves_nothing_in_the_model(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    reelign.sample(model, PROMPT, steps=2)
    capsys.readouterr()
    reelign.sample(model, PROMPT, steps=3)
    assert "4/3" not in capsys.readouterr().err
    assert not any(network._forward_hooks for network in model.experts.values())


def test_a_run_is_started_looked_at_extended_and_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = reelign.align(GRPO, set=SMALL)
    assert "grpo  2/2" in capsys.readouterr().err
    assert run.folder == Path("runs/small")
    assert [stage.steps for stage in run.stages] == [2]
    assert len(run.metrics("grpo")["online/reward"].values) == 2
    assert list(run.evaluations) == ["base", "grpo"]
    assert 0 <= run.evaluations["base"].measures["clip_right"].mean <= 1
    assert run.under("s2g1") == run.evaluations
    with pytest.raises(reelign.UserError, match="no sampler 's2g3' has judged this run; those that have: s2g1"):
        run.under("s2g3")
    assert repr(run).startswith("<run in runs/small, 1 of 1 stages done: grpo (")
    assert reelign.sample(run.model, PROMPT, steps=2).frames.shape[0] == 1
    page = run.report()
    assert repr(page) == "report  runs/small/report.html"
    assert "<p>runs/small/report.html</p><iframe srcdoc=" in page._repr_html_()
    assert "<script" not in page._repr_html_()

    with pytest.raises(reelign.UserError) as refused:
        reelign.align(GRPO, set=SMALL)
    assert "go on with resume=True, or choose another name with set=" in str(refused.value)
    reelign.align(GRPO, set=SMALL, resume=True)
    assert (
        'is finished already; to train on, resume it with more steps than 2 in its last stage, grpo, as in set={"'
        in (capsys.readouterr().err)
    )
    seen = Seen()
    more = reelign.align(GRPO, set={**SMALL, "stages.0.steps": 3}, resume=True, sinks=[seen])
    assert [event.step for event in seen.events if event.kind == "step"] == [3]
    assert "grpo  3/3" not in capsys.readouterr().err
    assert [stage.steps for stage in more.stages] == [3]
    assert [stage.steps for stage in reelign.Run("runs/small").stages] == [3]
    with pytest.raises(reelign.UserError, match=r"^no stage 'dpo' has reported steps; those that have: grpo\.$"):
        more.metrics("dpo")


def test_a_recipe_may_be_a_mapping_with_classes_for_parts_or_one_that_is_checked(here: Path) -> None:
    stage = {"name": "online", "steps": 1, "prompts": 1, "group": 2, "method": "grpo", "rewards": [Level]}
    tree = {
        "run": {"name": "mine"},
        "model": {"name": "gaussian", "side": 2},
        "stages": [{**stage, "dataset": "tests.parts.gaussian_data", "sampler": {"steps": 8}}],
    }
    with pytest.raises(reelign.UserError, match="the reward 'level' gave"):  # off its scale, so it was asked
        reelign.align(tree, set={"stages.0.rewards": [{"name": Level, "gain": 1e6}]}, sinks=[])
    checked = reelign.Recipe.model_validate(typed.plain(tree))
    with pytest.raises(reelign.UserError, match=r"^accept_changes=True is about a run"):
        reelign.align(checked, accept_changes=True)


def test_a_run_that_is_interrupted_is_saved_and_goes_on(here: Path) -> None:
    class Hurry(Seen):
        def send(self, event: reelign.Event) -> None:
            if event.kind == "step":
                signal.raise_signal(signal.SIGINT)

    stage = {"name": "online", "steps": 3, "prompts": 1, "group": 2, "method": "grpo", "rewards": [Bounded]}
    tree = {
        "run": {"name": "stopped"},
        "model": {"name": "gaussian", "side": 2},
        "stages": [{**stage, "dataset": "tests.parts.gaussian_data", "sampler": {"steps": 8}}],
    }
    with pytest.raises(Interrupted, match=r"^saved after step 1 of stage grpo; go on with resume=True\.$"):
        reelign.align(tree, sinks=[Hurry()])
    assert repr(reelign.Run("runs/stopped")) == "<run in runs/stopped, 0 of 1 stages done: none>"
    assert [stage.steps for stage in reelign.align(tree, resume=True, sinks=[]).stages] == [3]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("go on with --resume.", "go on with resume=True."),
        ("as in --set stages.0.steps=4.", 'as in set={"stages.0.steps": 4}.'),
        ("with --set run.name=....", 'with set={"run.name": ...}.'),
        ("with each --set that was given", "with each set that was given"),
        ("--set stages.5: 'stages.5' must be", "set \"stages.5\": 'stages.5' must be"),
        ("go on all the same with --accept-changes.", "go on all the same with accept_changes=True."),
    ],
)
def test_sentences_speak_of_what_is_typed(said: str, meant: str) -> None:
    assert typed.said(said) == meant


def test_the_page_about_python_runs_as_it_stands(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    session = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", session)
    for number, block in enumerate(blocks):
        exec(compile(block, f"block {number}", "exec"), session.__dict__)
    run = session.__dict__["run"]
    assert [stage.stage for stage in run.stages] == ["sft", "grpo"]
    assert {"still", "diversity"} <= set(run.evaluations["grpo"].measures)
    assert (run.folder / "report.html").is_file()


def test_no_public_name_is_also_a_file_that_would_take_its_place_once_imported() -> None:
    files = {path.stem for path in Path(reelign.__file__).parent.iterdir()}
    assert not files & {*reelign.__all__}
    assert callable(reelign.best)
    assert callable(reelign.best)  # its first use imports what it stands on
