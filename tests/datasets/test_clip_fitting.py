"""Clips cut to what a model makes: which are taken, which of their frames, which part of the picture."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tests.video.making import encode, numbered, numbers
from torch.testing import assert_close

from reelign.datasets import clip_folder, pair_list
from reelign.errors import BadData
from reelign.protocols import Geometry

SHOWCASE = Path(__file__).parents[3] / "shared" / "data" / "showcase"
MILLISECONDS = Fraction(1, 1000)


def opened(path: Path, **config: object) -> clip_folder.ClipFolder:
    return clip_folder.build(clip_folder.Config(path=path, **config))


def check_numbers(dataset: clip_folder.ClipFolder, model, clip) -> None:
    """Each latent is that of the clip its caption numbers."""
    drawn = dataset.clips(len(dataset.all_prompts().texts), 0, model)
    for x0, text in zip(drawn.x0, drawn.texts, strict=True):
        assert_close(x0, clip(int(text.split()[1])).transpose(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"frames": 5}, "odd.mp4 has 5 frames of 12x8 at 8 fps"),
        ({"height": 16}, "odd.mp4 has 4 frames of 12x16 at 8 fps"),
        ({"fps": 16.0}, "odd.mp4 has 4 frames of 12x8 at 16 fps"),
    ],
)
def test_exact_refuses_another_geometry(folder, save, model, shape, words):
    save(folder / "odd.mp4", 7, "clip 7", **shape)
    dataset = opened(folder)
    with pytest.raises(BadData, match=words) as caught:
        dataset.clips(1, 0, model)
    assert "1 of 7 clips" in str(caught.value)
    assert "do not have the model's 4 frames of 12x8 at 8 fps" in str(caught.value)
    assert "set dataset.fit to 'resize'" in str(caught.value)


def test_resize_crops_around_the_centre_and_follows_the_models_clock(tmp_path, save, clip, model):
    save(tmp_path / "a.mp4", 1, "wide", fps=20.0, frames=10, height=16, width=30)
    x0 = opened(tmp_path, fit="resize").clips(1, 0, model).x0[0]
    # 8 fps from 20 fps: frames 0, 2.5, 5, 7.5, of which halves round up; 24 of the 30 columns have the aspect ratio.
    source = clip(1, 10, 16, 30)[[0, 3, 5, 8], :, :, 3:27]
    expected = torch.nn.functional.interpolate(source, size=(8, 12), mode="bilinear", antialias=True)
    assert_close(x0.transpose(0, 1), expected, rtol=0, atol=1e-5)


def test_resize_leaves_a_clip_that_fits_as_it_is(folder, model, clip):
    check_numbers(opened(folder, fit="resize"), model, clip)


@pytest.mark.parametrize("shape", [{"frames": 3}, {"fps": 4.0, "frames": 8}])
def test_resize_refuses_clips_that_would_have_to_repeat_frames(folder, save, model, shape):
    save(folder / "short.mp4", 7, "clip 7", **shape)
    with pytest.raises(BadData, match=r"too short, or have too few frames a second.*short\.mp4 has"):
        opened(folder, fit="resize").clips(1, 0, model)


def captioned(path: Path, frames: int, **how: object) -> Path:
    """A clip of numbered frames of 32 x 32 with a caption."""
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".txt").write_text(path.stem)
    return encode(path, numbered(frames), options={"crf": "5"}, **how)


def shown(folder: Path, model, **config: object) -> list[int]:
    """Which frames the first clip of a folder gives."""
    return numbers(opened(folder, fit="resize", **config).clips(1, 0, model).x0[0].transpose(0, 1))


def test_a_longer_clip_is_taken_from_its_first_seconds_or_its_middle(tmp_path, new_model):
    model = new_model(5, 32, 32)
    captioned(tmp_path / "a.mp4", 41)
    assert shown(tmp_path, model) == [0, 1, 2, 3, 4]
    assert shown(tmp_path, model, start="middle") == [18, 19, 20, 21, 22]


def test_a_random_start_is_the_clips_own_and_changes_with_the_seed(tmp_path, new_model):
    model = new_model(5, 32, 32)
    for name in "abcdef":
        captioned(tmp_path / f"{name}.mp4", 200)
    dataset = opened(tmp_path, fit="resize", start="random")
    drawn = dataset.clips(6, 0, model)
    starts = {text: numbers(x0.transpose(0, 1)) for text, x0 in zip(drawn.texts, drawn.x0, strict=True)}
    assert all(taken == list(range(taken[0], taken[0] + 5)) for taken in starts.values())
    assert len({taken[0] for taken in starts.values()}) > 3
    moved = tmp_path.rename(tmp_path.parent / "moved")
    assert shown(moved, new_model(5, 32, 32), start="random") in list(starts.values())
    assert shown(moved, model, start="random", seed=1) not in list(starts.values())


def test_a_clip_of_just_the_models_length_has_one_start(folder, model, clip):
    for start in ("middle", "random"):
        check_numbers(opened(folder, fit="resize", start=start), model, clip)


@pytest.mark.parametrize("config", [clip_folder.Config, pair_list.Config])
def test_a_start_without_resizing_is_refused(config):
    with pytest.raises(ValidationError, match="start: middle cuts longer clips, which fit: exact refuses"):
        config(path="clips", start="middle")


def test_an_uneven_clip_gives_what_is_on_screen(tmp_path, new_model):
    times = [0, *(1000 + round(k * 1000 / 60) for k in range(60))]
    captioned(tmp_path / "a.mp4", 61, times=times, time_base=MILLISECONDS)
    assert shown(tmp_path, new_model(9, 32, 32)) == [0] * 8 + [1]


def test_an_uneven_clip_of_the_right_mean_rate_does_not_fit_exactly(tmp_path, new_model):
    times = [0, 10, 20, 30, 40, 955, 970, 985, 1000]
    captioned(tmp_path / "a.mp4", 9, times=times, time_base=MILLISECONDS)
    with pytest.raises(BadData, match=r"a\.mp4 has 9 frames of 32x32 at uneven 8 fps"):
        opened(tmp_path).fit(new_model(9, 32, 32).geometry)


def test_a_clip_a_little_slower_than_the_model_shows_a_frame_twice_now_and_then(tmp_path, new_model):
    captioned(tmp_path / "a.mp4", 20, fps=15)
    assert shown(tmp_path, new_model(17, 32, 32, 16.0)) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 13, 14, 15]


def test_a_clip_much_slower_than_the_model_is_refused(tmp_path, new_model):
    captioned(tmp_path / "a.mp4", 20, fps=14)
    with pytest.raises(BadData, match="have too few frames a second"):
        opened(tmp_path, fit="resize").fit(new_model(9, 32, 32, 16.0).geometry)


def test_misfits_within_the_allowed_share_are_left_out_and_reported(folder, save, model):
    save(folder / "short.mp4", 7, "clip 7", frames=3)
    dataset = opened(folder, fit="resize", quarantine=0.5)
    assert dataset.notes == ("7 clips read.",)
    for _ in range(2):
        dataset.fit(model.geometry)
    assert dataset.notes == ("6 clips read; 1 file left out: short.mp4 has 3 frames of 12x8 at 8 fps.",)
    assert dataset.counts == {"clips": 7, "left out": 1, "passed over": 0}
    assert sorted(dataset.clips(6, 0, model).texts) == [f"clip {k}" for k in range(6)]


def test_clips_that_are_unreadable_and_clips_that_do_not_fit_count_together(folder, save, model):
    save(folder / "short.mp4", 7, "clip 7", frames=3)
    (folder / "0.mp4").write_bytes(b"")
    dataset = opened(folder, quarantine=0.2)
    for _ in range(2):  # a refused fit is refused again
        with pytest.raises(BadData) as caught:
            dataset.fit(model.geometry)
    assert "2 of 7 clips" in str(caught.value)
    assert "cannot be read or do not have the model's 4 frames of 12x8 at 8 fps" in str(caught.value)


def test_a_data_set_of_misfits_is_refused_whatever_the_share(folder, new_model):
    with pytest.raises(BadData, match=r"6 of 6 clips .* and none is left: 0\.mp4 has"):
        opened(folder, quarantine=1.0).fit(new_model(5).geometry)


def test_pairs_with_a_misfit_are_left_out(folder, save, model):
    save(folder / "short.mp4", 7, frames=3)
    path = folder / "pairs.jsonl"
    row = '{{"prompt": "{}", "chosen": "{}.mp4", "rejected": "{}.mp4"}}\n'
    path.write_text(row.format("fine", 0, 1) + row.format("misfit", 2, "short"))
    dataset = pair_list.build(pair_list.Config(path=path, quarantine=0.5))
    dataset.fit(model.geometry)
    assert dataset.notes == (
        "3 clips read for 2 pairs; 1 clip left out with their pairs: short.mp4 has 3 frames of 12x8 at 8 fps.",
    )
    assert dataset.pairs(2, 0, model).texts == ("fine", "fine")


def test_what_was_done_to_the_pictures_is_said(tmp_path, new_model):
    captioned(tmp_path / "a.mp4", 9, sample_aspect_ratio=Fraction(2))
    captioned(tmp_path / "b.mp4", 9)
    assert opened(tmp_path).notes == ("2 clips read (1 stretched).",)


def test_fitting_decodes_nothing(folder, monkeypatch):
    dataset = opened(folder)
    monkeypatch.setattr("reelign.video.read", lambda *_, **__: pytest.fail("decoded"))
    dataset.fit(Geometry(4, 8, 12, 8.0, ()))


@pytest.mark.skipif(not SHOWCASE.is_dir(), reason="the showcase clips are not here")
def test_showcase_clips_are_resized_to_a_small_model(tmp_path, new_model):
    for name in ("case4-baseline.mp4", "case4-ours.mp4"):
        (tmp_path / name).write_bytes((SHOWCASE / name).read_bytes())
        (tmp_path / name).with_suffix(".txt").write_text("bulbs, stars and snow")
    small = new_model(frames=13, height=32, width=32)
    x0 = opened(tmp_path, fit="resize").clips(2, 0, small).x0
    assert x0.shape == (2, 3, 13, 32, 32)
    assert x0.std() > 0.05
