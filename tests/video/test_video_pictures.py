"""Pictures as a player shows them: turns and mirrors, shapes of pixels, fields, colours; others are refused."""

import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from tests.video.making import box, encode, fill, numbered, put_box, stream_of
from torch.testing import assert_close

from reelign import video
from reelign.errors import BadData

ORIENTATIONS = {
    (1, 0, 0, 1): (lambda p: p, ()),
    (-1, 0, 0, -1): (lambda p: np.rot90(p, 2), ("turned",)),
    (0, 1, -1, 0): (lambda p: np.rot90(p, -1), ("turned",)),
    (0, -1, 1, 0): (lambda p: np.rot90(p, 1), ("turned",)),
    (-1, 0, 0, 1): (np.fliplr, ("mirrored",)),
    (1, 0, 0, -1): (np.flipud, ("mirrored",)),
    (0, 1, 1, 0): (lambda p: p.swapaxes(0, 1), ("turned and mirrored",)),
    (0, -1, -1, 0): (lambda p: np.rot90(p.swapaxes(0, 1), 2), ("turned and mirrored",)),
}
"""(a, b, c, d) of the display matrix, x' = a x + c y and y' = b x + d y, and what it does to a picture."""


def refusal(path: Path) -> str:
    for look in (video.probe, video.read):
        with pytest.raises(BadData) as caught:
            look(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert text.endswith(".")
    return text


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def oriented(path: Path, frames: np.ndarray, matrix: tuple[int, int, int, int]) -> Path:
    """The frames, losslessly, in an mp4 with that display matrix."""
    a, b, c, d = (value << 16 for value in matrix)
    with av.open(str(path), "w") as file:
        stream = stream_of(file, "libx264rgb", frames.shape[1:3], "rgb24", 8, options={"crf": "0"})
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        fill(file, stream, frames)
    return path


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_each_orientation_is_read_as_displayed(tmp_path, matrix):
    frames = noise(2, 4, 6)
    path = oriented(tmp_path / "a.mp4", frames, matrix)
    turn, notes = ORIENTATIONS[matrix]
    shown = torch.from_numpy(np.stack([turn(frame) for frame in frames])).permute(0, 3, 1, 2) / 255
    header = video.probe(path)
    assert (header.height, header.width, header.notes) == (*shown.shape[2:], notes)
    assert_close(video.read(path, size=tuple(shown.shape[2:])).frames, shown, rtol=0, atol=0)


def test_a_slanted_picture_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = stream_of(file, "libx264", (32, 32), "yuv420p", 8)
        stream.set_display_rotation(30)
        fill(file, stream, numbered(2))
    assert re.search("turned by (29|30) degrees; only quarter turns are read", refusal(tmp_path / "a.mp4"))


@pytest.mark.parametrize(
    ("aspect", "size"),
    [((2, 1), (32, 64)), ((1, 2), (64, 32)), ((1280, 1281), (32, 32)), ((64, 45), (32, 46))],
)
def test_pixels_that_are_not_square_are_stretched_as_players_do(tmp_path, aspect, size):
    ramp = np.linspace(0, 255, 32, dtype=np.uint8)
    frames = np.broadcast_to(ramp[None, :, None, None], (2, 32, 32, 3))
    path = encode(
        tmp_path / "a.mp4", np.ascontiguousarray(frames), options={"crf": "1"}, sample_aspect_ratio=Fraction(*aspect)
    )
    clip = video.read(path, size=size).frames
    assert clip.shape == (2, 3, *size)
    assert_close(clip[0, 0, [0, -1], 0], torch.tensor([0.0, 1.0]), rtol=0, atol=0.04)
    assert video.probe(path).notes == (("stretched",) if size != (32, 32) else ())


def test_a_turned_clip_is_stretched_before_it_is_turned(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = stream_of(file, "libx264", (32, 32), "yuv420p", 8, sample_aspect_ratio=Fraction(2))
        stream.set_display_rotation(90)
        fill(file, stream, numbered(2))
    assert video.read(tmp_path / "a.mp4", size=(64, 32)).frames.shape == (2, 3, 64, 32)


def interlaced(path: Path) -> Path:
    """A bar that moves three pixels a field; frames of two fields."""
    fields = np.full((18, 32, 32, 3), 40, np.uint8)
    for k in range(18):
        fields[k, :, 3 * k % 24 : 3 * k % 24 + 8] = 240
    frames = fields[::2].copy()
    frames[:, 1::2] = fields[1::2, 1::2]
    options = {"flags": "+ilme+ildct", "x264-params": "interlaced=1:tff=1", "crf": "5"}
    return encode(path, frames, pixels="yuv444p", options=options)


def test_two_fields_become_one_moment(tmp_path):
    path = interlaced(tmp_path / "a.mp4")
    header = video.probe(path)
    assert (header.frames, header.notes) == (9, ("deinterlaced",))
    for frame in video.read(path, frames=9).frames[1:-1]:
        assert (frame[:, 8:24:2] - frame[:, 9:24:2]).abs().max() < 0.1  # combed, it would be 0.78
        assert ((frame[0, 16] > 0.5).sum() - 8).abs() <= 1


def test_kept_frames_of_an_interlaced_clip_are_those_of_the_whole(tmp_path):
    path = interlaced(tmp_path / "a.mp4")
    assert torch.equal(video.read(path, keep=[2, 5]).frames, video.read(path).frames[[2, 5]])


COLOUR = (200, 60, 30)


def coloured(path: Path, side: tuple[int, int], matrix: Colorspace, wide: bool, tagged: bool) -> torch.Tensor:
    """One colour through a matrix and a range, and back."""
    with av.open(str(path), "w") as file:
        stream = stream_of(file, "libx264", side, "yuv420p", 8, options={"crf": "1", "preset": "ultrafast"})
        if tagged:
            stream.codec_context.colorspace = int(matrix)
            stream.codec_context.color_range = int(ColorRange.JPEG if wide else ColorRange.MPEG)
        pixels = np.broadcast_to(np.array(COLOUR, dtype=np.uint8), (*side, 3))
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=matrix,
            dst_color_range=ColorRange.JPEG if wide else ColorRange.MPEG,
            threads=1,
        )
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return video.read(path).frames[0].mean(dim=(1, 2)) * 255


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("matrix", [Colorspace.ITU601, Colorspace.ITU709, Colorspace.BT2020])
def test_the_matrix_and_the_range_that_a_clip_names_are_used(tmp_path, matrix, wide):
    shown = coloured(tmp_path / "a.mp4", (32, 32), matrix, wide, tagged=True)
    assert_close(shown, torch.tensor(COLOUR, dtype=torch.float32), rtol=0, atol=3)


@pytest.mark.parametrize(("side", "matrix"), [((480, 640), Colorspace.ITU601), ((720, 1280), Colorspace.ITU709)])
def test_a_clip_that_names_no_matrix_has_that_of_its_size(tmp_path, side, matrix):
    shown = coloured(tmp_path / "a.mp4", side, matrix, wide=False, tagged=False)
    assert_close(shown, torch.tensor(COLOUR, dtype=torch.float32), rtol=0, atol=3)


def test_ten_bits_of_the_usual_range_are_read(tmp_path):
    frames = noise(1, 8, 8).repeat(4, axis=1).repeat(4, axis=2)
    path = encode(tmp_path / "a.mp4", frames, pixels="yuv444p10le", options={"crf": "1"})
    shown = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    assert (video.read(path).frames - shown).abs().mean() < 0.01


@pytest.mark.parametrize(("curve", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_high_dynamic_range_is_refused(tmp_path, curve, name):
    options = {"x264-params": f"transfer={curve}:colormatrix=bt2020nc:colorprim=bt2020"}
    path = encode(tmp_path / "a.mp4", numbered(2), pixels="yuv420p10le", options=options)
    assert f"is HDR ({name}), which players map to the screen's range; convert it to SDR." in refusal(path)


def test_a_matrix_that_the_scaler_does_not_know_is_refused(tmp_path):
    path = encode(tmp_path / "a.mp4", numbered(2), options={"x264-params": "colormatrix=YCgCo"})
    assert "has colours of a kind that is not read (matrix 8)" in refusal(path)


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx-vp9"), ("a.mov", "prores_ks"), ("a.gif", "gif")])
def test_a_see_through_background_is_refused(tmp_path, name, codec):
    pixels = {"a.webm": "yuva420p", "a.mov": "yuva444p10le", "a.gif": "pal8"}[name]
    frames = np.concatenate([numbered(3), np.full((3, 32, 32, 1), 255, np.uint8)], axis=-1)
    frames[..., :16, 3] = 0
    path = tmp_path / name
    if codec == "gif":
        palette = bytes(range(256)) * 4
        with av.open(str(path), "w") as file:
            stream = stream_of(file, codec, (32, 32), pixels, 8)
            for k in range(3):
                frame = VideoFrame(32, 32, "pal8")
                frame.planes[0].update(bytes(32 * 32))
                frame.planes[1].update(b"\0\0\0\0" + palette[4:])
                frame.pts = k
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
    else:
        encode(path, frames, codec, pixels)
    assert "is transparent, and players show different backgrounds; render it onto one." in refusal(path)


def test_an_alpha_channel_that_hides_nothing_is_left_away(tmp_path):
    frames = np.concatenate([numbered(3), np.full((3, 32, 32, 1), 255, np.uint8)], axis=-1)
    path = encode(tmp_path / "a.mov", frames, "prores_ks", "yuva444p10le")
    shown = torch.from_numpy(frames[..., :3]).permute(0, 3, 1, 2) / 255
    assert (video.read(path).frames - shown).abs().mean() < 0.02


def test_two_views_in_one_picture_are_refused(tmp_path):
    path = encode(tmp_path / "a.mp4", numbered(2), options={"x264-params": "frame-packing=3"})
    assert "holds two views in one picture (3D); render one of them." in refusal(path)


def test_a_sphere_is_refused(tmp_path):
    path = encode(tmp_path / "a.mp4", numbered(2))
    full = lambda name, content: box(name, bytes(4) + content)  # noqa: E731
    projection = box(b"proj", full(b"prhd", bytes(12)) + full(b"equi", bytes(16)))
    put_box(path, box(b"sv3d", full(b"svhd", b"x\0") + projection))
    assert "is a sphere (360 degrees), of which players show a view; render that view." in refusal(path)


def test_a_clip_that_changes_its_size_is_named(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        stream = stream_of(file, "mjpeg", (32, 32), "yuvj420p", 8)
        small = av.CodecContext.create("mjpeg", "w")
        small.width, small.height, small.pix_fmt, small.time_base = 16, 32, "yuvj420p", Fraction(1, 8)
        for k, encoder in enumerate((stream, small, small)):
            pixels = np.ascontiguousarray(numbered(3)[k][:, : encoder.width])
            frame = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuvj420p", threads=1)
            frame.pts, frame.time_base = k, Fraction(1, 8)
            for packet in encoder.encode(frame):
                packet.stream = stream
                file.mux(packet)
    with pytest.raises(BadData, match="changes its size from 32x32 to 16x32 pixels"):
        video.read(path)
    assert video.read(path, keep=[0]).frames.shape == (1, 3, 32, 32)
