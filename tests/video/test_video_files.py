"""Files in and out: what a round trip costs, what bytes mean, and one sentence for each file that cannot be read."""

import os
import random
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from reelign import video
from reelign.errors import BadData, RunStopped
from reelign.playground.world import corpora

SHOWCASE = Path(__file__).parents[3] / "shared" / "data" / "showcase"
EIGHT_BITS = 0.5 / 255 + 1e-6
"""Half a step of 8 bits, and float32's rounding."""


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    """Sixteen playground clips [16 9 3 32 32]."""
    return corpora.pretraining(16, seed=0).clips


@pytest.fixture
def path(tmp_path: Path, clips: torch.Tensor) -> Path:
    """One readable clip of 9 frames."""
    video.write(tmp_path / "a.mp4", clips[0], 8, lossless=True)
    return tmp_path / "a.mp4"


@pytest.fixture(scope="module")
def whole_file(clips: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a readable clip of 4 frames."""
    path = tmp_path_factory.mktemp("whole") / "a.mp4"
    video.write(path, clips[0, :4], 8, lossless=True)
    return path.read_bytes()


def sentence(path: Path, **expected: object) -> str:
    """What the user reads when `path` is refused: one line, with the file's name, and nothing of FFmpeg's traceback."""
    with pytest.raises(BadData) as caught:
        video.read(path, **expected)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_a_lossless_clip_returns_within_eight_bits(clips, tmp_path):
    for clip in clips:
        video.write(tmp_path / "a.mp4", clip, 8, lossless=True)
        back = video.read(tmp_path / "a.mp4", frames=9, size=(32, 32))
        assert back.fps == 8
        assert back.frames.dtype == torch.float32
        assert_close(back.frames, clip, atol=EIGHT_BITS, rtol=0)


@pytest.mark.parametrize(("scale", "mean", "worst"), [(8, 0.9, 7), (1, 3.0, 190)])
def test_a_clip_for_browsers_returns_as_close_as_the_docstring_says(clips, tmp_path, scale, mean, worst):
    # Measured: mean 0.80 and worst 6.3 at scale 8, mean 2.74 and worst 184 at scale 1: chroma has half resolution.
    errors = []
    for clip in clips:
        video.write(tmp_path / "a.mp4", clip, 8, scale)
        back = video.read(tmp_path / "a.mp4").frames
        errors.append((back - clip.repeat_interleave(scale, 2).repeat_interleave(scale, 3)).abs() * 255)
    assert torch.stack(errors).mean() < mean
    assert torch.stack(errors).max() < worst


def test_a_clip_for_browsers_is_yuv420p_with_its_index_in_front(clips, tmp_path):
    path = tmp_path / "a.mp4"
    video.write(path, clips[0], 8, scale=2)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.profile) == ("h264", "yuv420p", "High")
        assert (stream.height, stream.width, stream.average_rate) == (64, 64, 8)
        assert stream.codec_context.colorspace == 1  # BT.709, so that browsers and readers use one matrix
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("lossless", [False, True])
def test_the_same_frames_give_the_same_bytes(clips, tmp_path, lossless):
    for name in ("a.mp4", "b.mp4"):
        video.write(tmp_path / name, clips[1], 8, lossless=lossless)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@settings(max_examples=15, deadline=None)
@given(
    frames=st.integers(1, 6),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    fps=st.sampled_from([0.5, 8, 23.976, 60]),
)
def test_any_shape_and_rate_survives_lossless(tmp_path_factory, frames, height, width, fps):
    path = tmp_path_factory.mktemp("shapes") / "a.mp4"
    given_frames = torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(frames))
    video.write(path, given_frames, fps, lossless=True)
    back = video.read(path, frames=frames, size=(height, width))
    assert_close(back.frames, given_frames, atol=EIGHT_BITS, rtol=0)
    assert back.fps == pytest.approx(fps, rel=1e-4)
    assert video.probe(path) == video.Header(frames, height, width, back.fps)


def test_kept_frames_are_those_of_the_whole_clip(path):
    whole = video.read(path).frames
    assert_close(video.read(path, keep=[0, 3, 8]).frames, whole[[0, 3, 8]], rtol=0, atol=0)
    assert "cannot all be taken" in sentence(path, keep=[0, 9])


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert "there is no video at" in sentence(tmp_path / "absent.mp4")
    assert "is not a file" in sentence(tmp_path)


def test_a_link_to_nothing_says_where_it_leads(tmp_path):
    (tmp_path / "a.mp4").symlink_to("gone.mp4")
    assert "a.mp4 is a symbolic link to gone.mp4, which is not there." in sentence(tmp_path / "a.mp4")


@pytest.mark.timeout(10)
def test_files_that_would_never_end_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    assert "is not a file" in sentence(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").symlink_to("/dev/zero")
    assert "is not a file" in sentence(tmp_path / "b.mp4")


@pytest.mark.parametrize("name", ["a" * 3000 + ".mp4", "a\0.mp4", "loop.mp4"])
def test_names_that_the_system_refuses_get_a_short_sentence(tmp_path, name):
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    with pytest.raises(BadData, match=r"cannot be read \(.*\); check the path\.$") as caught:
        video.read(tmp_path / name)
    assert len(str(caught.value)) < 400


def test_a_git_lfs_pointer_is_named(tmp_path):
    (tmp_path / "a.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    assert "is a git-lfs pointer, not the video; run git lfs pull." in sentence(tmp_path / "a.mp4")


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "a.mp4").touch()
    assert "is empty (0 bytes)" in sentence(tmp_path / "a.mp4")


def test_garbage_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(random.Random(0).randbytes(5000))
    assert "is no video of a kind that is read; convert it to one of mp4, mov" in sentence(tmp_path / "a.mp4")


@pytest.mark.parametrize("kept", [0.02, 0.1, 0.2, 0.5, 0.9, 0.999])
def test_a_clip_that_is_cut_off_is_named_by_read_and_by_probe(path, kept):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert re.search("cut off|cannot be read as a video", sentence(path))
    with pytest.raises(BadData, match=r"cut off|cannot be read as a video"):
        video.probe(path)


def test_damage_inside_a_clip_is_named(path):
    # Its index and its list of packets are whole, so only decoding can tell.
    data = bytearray(path.read_bytes())
    data[-1500:-500] = bytes(1000)
    path.write_bytes(data)
    assert re.search("damaged|cannot be read as a video", sentence(path))


@settings(max_examples=60, deadline=None)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=30),
    kept=st.floats(0, 1),
)
def test_no_damage_escapes_as_another_error(tmp_path_factory, whole_file, flips, kept):
    content = bytearray(whole_file)
    for place, value in flips:
        content[int(place * len(content))] = value
    path = tmp_path_factory.mktemp("damage") / "a.mp4"
    path.write_bytes(content[: int(kept * len(content))])
    try:
        video.read(path, frames=4, size=(32, 32))  # harmless flips leave a readable clip
    except BadData as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_sound_alone_is_named(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "has no video stream" in sentence(path)


def test_a_playlist_named_mp4_opens_nothing(tmp_path, path):
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {path}\n")
    assert "is no video of a kind that is read" in sentence(tmp_path / "list.mp4")


def test_the_wrong_number_of_frames_is_named(path):
    assert sentence(path, frames=5) == f"{path} has 9 frames, but 5 are needed; cut it or render it with 5 frames."


def test_the_wrong_resolution_is_named(path):
    assert sentence(path, size=(48, 64)) == (
        f"{path} is 32x32 pixels (width x height), but 64x48 is needed; resize it or render it at that size."
    )


def test_more_than_memory_is_refused_before_it_is_decoded(path, monkeypatch):
    monkeypatch.setattr("reelign.video._read.MOST_VALUES", 8 * 32 * 32 * 3)
    assert "at most 8 such frames are read at once" in sentence(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda clip: clip[:0], "give at least one of each"),
        (lambda clip: clip * 2, "values must lie in [0, 1]"),
        (lambda clip: clip * float("nan"), "values must lie in [0, 1]"),
    ],
)
def test_frames_that_no_clip_can_hold_are_refused(clips, tmp_path, change, words):
    with pytest.raises(BadData, match=re.escape(words)):
        video.write(tmp_path / "a.mp4", change(clips[0]), 8)
    assert not list(tmp_path.iterdir())


def test_an_odd_side_is_refused_at_an_odd_scale(clips, tmp_path):
    with pytest.raises(BadData, match="odd side"):
        video.write(tmp_path / "a.mp4", clips[0][..., :31], 8, 3)


@pytest.mark.parametrize(
    ("height", "width", "lossless", "size"),
    [
        (1, 1, False, (256, 256)),
        (32, 32, False, (256, 256)),
        (32, 31, False, (256, 248)),
        (30, 300, False, (30, 300)),
        (31, 300, False, (62, 600)),
        (31, 31, True, (31, 31)),
    ],
)
def test_without_a_scale_small_clips_are_enlarged_to_sides_that_browsers_have(tmp_path, height, width, lossless, size):
    video.write(tmp_path / "a.mp4", torch.full((2, 3, height, width), 0.5), 8, lossless=lossless)
    assert video.read(tmp_path / "a.mp4").frames.shape == (2, 3, *size)


@pytest.mark.parametrize(("fps", "scale"), [(0, 1), (float("nan"), 1), (8, 0)])
def test_a_rate_or_scale_without_meaning_is_refused(clips, tmp_path, fps, scale):
    with pytest.raises(BadData, match="fps with scale"):
        video.write(tmp_path / "a.mp4", clips[0], fps, scale)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path, clips, monkeypatch):
    before = path.read_bytes()

    def fail(temporary: Path, *_: object) -> None:
        temporary.write_bytes(b"half a clip")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reelign.video._write._encode", fail)
    with pytest.raises(RunStopped, match="No space left on device; make room there"):
        video.write(path, clips[1], 8)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_is_a_file_cannot_hold_clips(path, clips):
    with pytest.raises(RunStopped, match="cannot write"):
        video.write(path / "b.mp4", clips[1], 8)


@pytest.mark.skipif(not SHOWCASE.is_dir(), reason="the showcase clips are not here")
def test_showcase_clips_are_read():
    found = sorted(SHOWCASE.glob("*.mp4"))
    assert {str(video.probe(path)) for path in found} == {"150 frames of 832x480 at 30 fps"}
    clip = video.read(found[0], keep=[0, 10])
    assert clip.frames.shape == (2, 3, 480, 832)
    assert clip.frames.std() > 0.05
