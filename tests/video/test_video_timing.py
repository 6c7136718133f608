"""Which frames a player shows when: uneven clips, stills, trims, and files whose time stamps say little."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from tests.video.making import box, encode, fill, numbered, numbers, recode, stream_of

from reelign import video
from reelign.errors import BadData
from reelign.video import _structure

MILLISECONDS = Fraction(1, 1000)
STILL = [0, *(1000 + round(k * 1000 / 60) for k in range(60))]
"""A second of nothing, then sixty frames a second."""


def timed(path: Path, times: list[int], **more: object) -> video.Header:
    return video.probe(encode(path, numbered(len(times)), times=times, time_base=MILLISECONDS, **more))


def test_a_still_stays_until_the_picture_moves_again(tmp_path):
    header = timed(tmp_path / "a.mp4", STILL)
    assert not header.even
    assert header.shown(9, 8.0) == [0] * 8 + [1]
    assert header.shown(5, 60.0, start=1.0) == [1, 2, 3, 4, 5]
    assert numbers(video.read(tmp_path / "a.mp4", keep=[0, 0, 1]).frames) == [0, 0, 1]


def test_an_uneven_clip_is_no_even_one_of_its_mean_rate(tmp_path):
    header = timed(tmp_path / "a.mp4", [0, 10, 20, 30, 40, 955, 970, 985, 1000])
    assert not header.even
    assert str(header) == "9 frames of 32x32 at uneven 8 fps"
    assert header.shown(9, 8.0) == [0, 4, 4, 4, 4, 4, 4, 4, 8]


def test_the_whole_of_an_uneven_clip_is_what_is_on_screen_at_its_mean_rate(tmp_path):
    timed(tmp_path / "a.mp4", [0, 10, 20, 30, 40, 955, 970, 985, 1000])
    clip = video.read(tmp_path / "a.mp4")
    assert clip.fps == 8
    assert numbers(clip.frames) == [0, 4, 4, 4, 4, 4, 4, 4, 8]


def test_a_last_frame_that_stays_is_shown_until_the_end(tmp_path):
    header = timed(tmp_path / "a.mp4", [0, 125, 250, 375, 2375])
    assert header.shown(20, 8.0)[-2:] == [3, 4]
    assert header.shown(24, 8.0)[-1] == header.frames == 5  # the clip has ended


def test_jitter_of_a_few_milliseconds_is_none(tmp_path):
    times = [round(k * 1000 / 30) + (-1) ** k * 3 for k in range(1, 31)]
    header = timed(tmp_path / "a.mp4", times)
    assert header.even
    assert header.fps == pytest.approx(30, rel=0.01)
    assert header.shown(10, 30.0) == list(range(10))


def test_even_clips_give_the_nearest_frames_with_halves_up():
    header = video.Header(10, 8, 8, 20.0)
    assert header.shown(4, 8.0) == [0, 3, 5, 8]
    assert header.shown(5, 8.0) == [0, 3, 5, 8, 10]  # one beyond the clip
    assert header.shown(3, 8.0, start=0.1) == [2, 5, 7]


@pytest.mark.parametrize("fps", [8.0, 12.5, 23.976, 30.0, 60.0])
def test_a_clip_with_its_moments_written_out_gives_the_frames_of_the_even_one(fps):
    even = video.Header(40, 8, 8, fps)
    written = video.Header(40, 8, 8, fps, type(even.moments)("d", [k / fps for k in range(41)]))
    assert written.even
    for rate in (5.0, 7.9, fps / 2.001):
        assert written.shown(20, rate) == even.shown(20, rate)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.webm", "libvpx-vp9", "yuv420p"), ("a.mkv", "libx264", "yuv420p"), ("a.gif", "gif", "rgb8")],
)
def test_stamps_in_rounded_units_are_even(tmp_path, name, codec, pixels):
    header = video.probe(encode(tmp_path / name, numbered(20), codec, pixels, fps=24))
    assert header.even
    assert header.fps == pytest.approx(24, rel=0.05)  # a GIF counts hundredths


def test_avi_files_whose_stamps_are_out_of_order_are_read_in_order(tmp_path):
    path = encode(tmp_path / "a.avi", numbered(20), options={"crf": "5", "bf": "2"})
    assert numbers(video.read(path).frames) == list(range(20))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_leading_frames_of_a_clip_cut_without_encoding_are_not_shown(tmp_path, suffix):
    open_groups = "keyint=10:min-keyint=10:open-gop=1:bframes=2:scenecut=0"
    source = encode(tmp_path / "long.mp4", numbered(40), options={"x264-params": open_groups, "crf": "10"})
    started = []
    path = recode(source, tmp_path / f"cut{suffix}", lambda p: started.append(p.is_keyframe) or sum(started) > 1)
    assert video.probe(path).frames == 30
    assert numbers(video.read(path).frames) == list(range(10, 40))


def test_frames_before_an_edit_are_not_shown(tmp_path):
    source = encode(tmp_path / "long.mp4", numbered(20), options={"crf": "10", "bf": "2"})
    path = recode(source, tmp_path / "cut.mp4", lambda _: True, shift=-5 * 2048)
    assert numbers(video.read(path).frames) == list(range(5, 20))
    assert video.probe(path) == video.Header(15, 32, 32, 8.0)


def test_a_clip_that_starts_late_starts_with_its_first_frame(tmp_path):
    source = encode(tmp_path / "a.mp4", numbered(9), options={"crf": "10"})
    path = recode(source, tmp_path / "late.mp4", lambda _: True, shift=7 * 2048)
    assert video.probe(path) == video.probe(source)
    assert numbers(video.read(path).frames) == list(range(9))


def test_fragments_as_downloaders_leave_them_are_one_clip(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as file:
        fill(file, stream_of(file, "libx264", (32, 32), "yuv420p", 8, options={"g": "4", "crf": "10"}), numbered(20))
    assert video.probe(path) == video.Header(20, 32, 32, 8.0)
    assert numbers(video.read(path).frames) == list(range(20))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_far_inside_a_clip_are_those_of_a_decoder_that_begins_at_the_start(tmp_path, suffix, monkeypatch):
    frames = numbered(256).repeat(2, axis=0)[100:440]
    path = encode(tmp_path / f"a{suffix}", frames, options={"x264-params": "keyint=30:bframes=2:open-gop=1"})
    searched = video.read(path, keep=[260, 261, 300, 339]).frames
    monkeypatch.setattr("reelign.video._read.FAR", 1000)
    assert torch.equal(searched, video.read(path, keep=[260, 261, 300, 339]).frames)


def test_a_changed_file_is_looked_at_again(tmp_path):
    path = tmp_path / "a.mp4"
    assert video.probe(encode(path, numbered(4))).frames == 4
    assert video.probe(encode(path, numbered(5))).frames == 5


def edited(path: Path, *entries: tuple[int, int, float], version: int = 0, kind: bytes = b"vide") -> Path:
    """The structure of an mp4 of one track whose edit list has (duration, begin, pace)."""
    form = ">IiI" if version == 0 else ">QqI"
    edits = b"".join(struct.pack(form, duration, begin, round(pace * 2**16)) for duration, begin, pace in entries)
    listed = box(b"elst", bytes([version, 0, 0, 0]) + len(entries).to_bytes(4) + edits)
    handler = box(b"hdlr", bytes(8) + kind + bytes(13))
    path.write_bytes(box(b"moov", box(b"trak", box(b"edts", listed) + box(b"mdia", handler))))
    return path


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    ("entries", "paced"),
    [
        ([(100, 0, 1.0)], False),
        ([(100, 0, 0.5)], True),
        ([(50, 0, 1.0), (50, 512, 2.0)], True),
        ([(50, 0, 1.0), (50, 512, 0.0)], True),
        ([(50, -1, 0.0), (50, 512, 1.0)], False),  # nothing is shown before the clip begins
        ([], False),
    ],
)
def test_an_edit_list_is_asked_for_its_paces(tmp_path, version, entries, paced):
    with edited(tmp_path / "a.mp4", *entries, version=version).open("rb") as file:
        assert _structure.paced(file, "mp4") == paced
    with edited(tmp_path / "sound.mp4", *entries, version=version, kind=b"soun").open("rb") as file:
        assert not _structure.paced(file, "mp4")


def test_an_edit_list_that_ends_too_early_is_read_as_far_as_it_goes(tmp_path):
    path = edited(tmp_path / "a.mp4", (100, 0, 1.0))
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, data.index(b"elst") + 8, 2**32 - 1)
    path.write_bytes(data)
    with path.open("rb") as file:
        assert not _structure.paced(file, "mp4")


@pytest.mark.parametrize("pace", [0.0, 0.5, 2.0])
def test_a_clip_that_plays_slower_faster_or_as_a_still_is_refused(tmp_path, pace):
    path = encode(tmp_path / "a.mp4", numbered(9), options={"bf": "2"})
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12
    assert struct.unpack_from(">I", data, entry - 4) == (1,)
    assert struct.unpack_from(">I", data, entry + 8) == (2**16,)
    assert video.probe(path).frames == 9
    struct.pack_into(">I", data, entry + 8, round(pace * 2**16))
    path.write_bytes(data)
    for look in (video.probe, video.read):
        with pytest.raises(
            BadData, match=r"a\.mp4 asks players to show parts of it slower, faster or as a still; render"
        ):
            look(path)
