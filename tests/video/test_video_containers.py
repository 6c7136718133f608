"""The containers that are read, files that end too early, and which of their streams is the clip."""

from pathlib import Path

import av
import numpy as np
import pytest
from tests.video.making import box, encode, fill, numbered, numbers, put_box, stream_of

from reelign import video
from reelign.errors import BadData

SHARP = {"crf": "5"}
KINDS = {
    "a.mp4": ("libx264", "yuv420p"),
    "a.m4v": ("libx264", "yuv420p"),
    "a.MOV": ("libx264", "yuv420p"),
    "a.3gp": ("libx264", "yuv420p"),
    "a.mkv": ("libx264", "yuv420p"),
    "a.webm": ("libvpx-vp9", "yuv420p"),
    "a.avi": ("mpeg4", "yuv420p"),
    "a.gif": ("gif", "rgb8"),
}
FORMATS = {"a.m4v": "mp4", "a.MOV": "mov"}


def refusal(path: Path) -> str:
    for look in (video.probe, video.read):
        with pytest.raises(BadData) as caught:
            look(path)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_read_whatever_it_is_called(tmp_path, name):
    path = encode(tmp_path / name, numbered(9), *KINDS[name], container=FORMATS.get(name), options=SHARP)
    assert Path(name).suffix.lower() in video.SUFFIXES
    misnamed = path.rename(tmp_path / "clip.mp4")
    clip = video.read(misnamed, frames=9, size=(32, 32))
    assert clip.fps == pytest.approx(8, rel=0.01)
    assert numbers(clip.frames) == list(range(9))


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.98])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi", "a.gif"])
def test_each_kind_is_refused_where_its_end_is_missing(tmp_path, name, kept):
    path = encode(tmp_path / name, numbered(40), *KINDS[name])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert "cut off" in refusal(path)


def test_junk_behind_the_end_does_not_matter(tmp_path):
    for name in ("a.mp4", "a.gif"):
        path = encode(tmp_path / name, numbered(9), *KINDS[name], options=SHARP)
        path.write_bytes(path.read_bytes() + bytes(300))
        assert video.probe(path).frames == 9


def test_kinds_that_are_not_read_are_named(tmp_path):
    path = encode(tmp_path / "a.ts", numbered(4), container="mpegts")
    assert "is no video of a kind that is read; convert it to one of mp4, mov, mkv, webm, avi and gif." in refusal(path)


def pictured(path: Path, picture: int, clip: int, **disposition: object) -> Path:
    """A clip behind another video stream: `picture` frames of 64 x 64 and `clip` of 32 x 32."""
    with av.open(str(path), "w") as file:
        cover = stream_of(file, "mjpeg", (64, 64), "yuvj420p", 8)
        streams = [(cover, picture)]
        if clip:
            streams.append((stream_of(file, "libx264", (32, 32), "yuv420p", 8, options=SHARP), clip))
        for name, value in disposition.items():
            setattr(cover, name, value)
        for stream, count in streams:
            frames = numbered(count).repeat(stream.width // 32, axis=1).repeat(stream.width // 32, axis=2)
            fill(file, stream, frames)
    return path


COVER = {"disposition": av.stream.Disposition.attached_pic}


def test_a_cover_picture_is_not_the_clip(tmp_path):
    path = pictured(tmp_path / "a.mp4", 1, 9, **COVER)
    assert video.probe(path) == video.Header(9, 32, 32, 8.0)
    assert numbers(video.read(path).frames) == list(range(9))


def test_a_cover_picture_alone_is_named(tmp_path):
    assert "has a cover picture only" in refusal(pictured(tmp_path / "a.mp4", 1, 0, **COVER))


def test_the_best_of_several_video_streams_is_read_and_that_is_said(tmp_path):
    header = video.probe(pictured(tmp_path / "a.mp4", 1, 9))
    assert (header.frames, header.height) == (9, 32)
    assert header.notes == ("read from the best of 2 video streams",)


def test_sound_that_goes_on_longer_changes_nothing(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        sound = file.add_stream("aac", rate=16000)
        picture = stream_of(file, "libx264", (32, 32), "yuv420p", 8, options=SHARP)
        for k in range(64):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * k
            file.mux(sound.encode(frame))
        file.mux(sound.encode())
        fill(file, picture, numbered(9))
    assert video.probe(path) == video.Header(9, 32, 32, 8.0)
    assert numbers(video.read(path).frames) == list(range(9))


def test_a_clip_of_which_an_mp4_shows_a_part_is_refused_and_the_whole_is_not(tmp_path):
    aperture = lambda width, height: box(b"clap", b"".join(n.to_bytes(4) for n in (width, 1, height, 1, 0, 1, 0, 1)))  # noqa: E731
    path = encode(tmp_path / "whole.mp4", numbered(9))
    put_box(path, aperture(32, 32))
    assert video.probe(path).frames == 9
    path = encode(tmp_path / "part.mp4", numbered(9))
    put_box(path, aperture(24, 32))
    assert "asks players to show a part of its picture only; render it cropped." in refusal(path)


def test_a_clip_of_which_a_matroska_file_shows_a_part_is_refused(tmp_path):
    path = encode(tmp_path / "a.mkv", numbered(9))
    data = path.read_bytes()
    width = data.index(b"\xb0\x81\x20")  # PixelWidth 32, as one byte, becomes PixelCropTop 4 of the same length
    path.write_bytes(data[:width] + b"\x54\xbb\x81" + data[width + 3 :])
    path.write_bytes(data.replace(b"\xb0\x81\x20\xba\x81\x20", b"\x54\xbb\x82\x00\x04\xec", 1))
    assert "asks players to show a part of its picture only" in refusal(path)
