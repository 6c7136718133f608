"""Folders of captioned clips: their three layouts, their draws, and a sentence for each thing wrong with them."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from reelign.datasets import clip_folder
from reelign.errors import BadConfig, BadData

SHOWCASE = Path(__file__).parents[3] / "shared" / "data" / "showcase"


def opened(path: Path, **config: object) -> clip_folder.ClipFolder:
    return clip_folder.build(clip_folder.Config(path=path, **config))


def refusal(path: Path, **config: object) -> str:
    with pytest.raises(BadData) as caught:
        opened(path, **config)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def jsonl(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def check_numbers(dataset: clip_folder.ClipFolder, model, clip) -> None:
    """Each latent is that of the clip its caption numbers."""
    drawn = dataset.clips(len(dataset.all_prompts().texts), 0, model)
    for x0, text in zip(drawn.x0, drawn.texts, strict=True):
        assert_close(x0, clip(int(text.split()[1])).transpose(0, 1), rtol=0, atol=1e-6)
    assert_close(drawn.weight, torch.ones(len(drawn.texts)))


def test_captions_of_the_same_stem(folder, model, clip):
    dataset = opened(folder)
    assert dataset.all_prompts().texts == tuple(f"clip {k}" for k in range(6))
    assert dataset.counts == {"clips": 6, "unreadable": 0}
    check_numbers(dataset, model, clip)


@pytest.mark.parametrize("column", ["caption", "prompt", "text"])
def test_a_jsonl_table(folder, model, clip, column):
    rows = [{"file_name": f"{k}.mp4", column: f"clip {k}", "source": "elsewhere"} for k in (4, 2)]
    (folder / "metadata.jsonl").write_text(jsonl(*rows))
    dataset = opened(folder)
    assert dataset.all_prompts().texts == ("clip 4", "clip 2")
    check_numbers(dataset, model, clip)


def test_a_csv_table_whose_captions_hold_commas_and_newlines(folder, model):
    (folder / "metadata.csv").write_text('file_name,caption\r\n1.mp4,"clip 1,\r\n  and more"\r\n', newline="")
    assert opened(folder).clips(1, 0, model).texts == ("clip 1, and more",)


@pytest.mark.parametrize(("captions", "videos"), [("prompt.txt", "videos.txt"), ("captions.txt", "video.txt")])
def test_two_lists(folder, model, clip, captions, videos):
    (folder / captions).write_text("clip 5\nclip 0\n")
    (folder / videos).write_text("5.mp4\n./0.mp4\n")
    check_numbers(opened(folder), model, clip)


def test_captions_keep_their_script_and_lose_their_mark_and_line_breaks(tmp_path, save):
    save(tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_bytes("\ufeffein Bär\n fällt — 落ちる\n".encode())
    assert opened(tmp_path).all_prompts().texts == ("ein Bär fällt — 落ちる",)


def test_draws_are_functions_of_their_number_and_cover_an_epoch(folder, model, new_model):
    first, second = opened(folder), opened(folder)
    late = second.clips(2, 7, new_model())
    texts = [text for k in range(3) for text in first.clips(2, k, model).texts]
    assert sorted(texts) == [f"clip {k}" for k in range(6)]
    again = first.clips(2, 7, model)
    assert again.texts == late.texts
    assert_close(again.x0, late.x0, rtol=0, atol=0)
    assert opened(folder, seed=1).clips(6, 0, model).texts != first.clips(6, 0, model).texts


def test_more_clips_than_there_are_come_again(folder, model):
    texts = opened(folder).clips(9, 0, model).texts
    assert texts[6:] == texts[:3]


def test_each_clip_is_encoded_once_for_a_model(folder, model, new_model):
    dataset = opened(folder)
    for k in range(9):
        dataset.clips(4, k, model)
    assert model.encoded == 6
    other = new_model()
    dataset.clips(2, 0, other)
    assert other.encoded == 2


def test_captions_are_prompts_too(folder):
    prompts = opened(folder).prompts(3, 2, 0)
    assert len(set(prompts.ids)) == 3
    assert prompts.texts == tuple(f"clip {k}" for k in prompts.ids)
    assert prompts.group == 2
    with pytest.raises(BadData, match="has 6 prompts, but 7 different ones are drawn at once"):
        opened(folder).prompts(7, 2, 0)


def test_pairs_are_refused_by_name(folder, model):
    with pytest.raises(
        BadConfig, match="clip_folder gives clips and prompts only; for pairs use the dataset pair_list"
    ):
        opened(folder).pairs(1, 0, model)


def test_a_missing_folder_and_a_file_are_named(tmp_path, save):
    assert refusal(tmp_path / "absent") == f"there is no folder at {tmp_path / 'absent'}; check the path."
    assert "is not a folder" in refusal(save(tmp_path / "a.mp4"))


def test_an_empty_folder_is_named(tmp_path):
    assert "holds no clips; put a.mp4 with its caption in a.txt there" in refusal(tmp_path)


def test_missing_captions_are_counted_and_three_are_named(folder):
    for k in range(5):
        (folder / f"{k}.txt").unlink()
    assert "5 of 6 clips" in refusal(folder)
    assert "no caption: 0.mp4; 1.mp4; 2.mp4 and 2 more;" in refusal(folder)


def test_an_empty_caption_is_named(folder):
    (folder / "3.txt").write_text(" \n")
    assert "3.txt is empty; write the caption of 3.mp4 there." in refusal(folder)


def test_a_caption_that_is_not_utf8_is_named(folder):
    (folder / "3.txt").write_bytes(b"ein B\xe4r")
    assert "3.txt is not UTF-8 (byte 5); save it as UTF-8." in refusal(folder)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "garbage": b"no video" * 99, "truncated": data[: len(data) * 3 // 4]}[how])


@pytest.mark.parametrize("how", ["empty", "garbage", "truncated"])
def test_an_unreadable_clip_stops_by_default(folder, how):
    damage(folder / "2.mp4", how)
    text = refusal(folder)
    assert text.startswith(f"1 of 6 clips of {folder} cannot be read, and dataset.quarantine allows a share of 0: ")
    assert str(folder / "2.mp4") in text


def test_unreadable_clips_within_the_allowed_share_are_left_out_and_reported(folder, model, caplog):
    damage(folder / "2.mp4", "truncated")
    damage(folder / "4.mp4", "empty")
    dataset = opened(folder, quarantine=0.34)
    assert dataset.counts == {"clips": 6, "unreadable": 2}
    assert [path.name for path in dataset.unreadable] == ["2.mp4", "4.mp4"]
    assert "left out" in caplog.text
    assert "4.mp4 is empty" in caplog.text
    assert sorted(dataset.clips(4, 0, model).texts) == ["clip 0", "clip 1", "clip 3", "clip 5"]
    for k in range(6):
        assert len(set(dataset.clips(3, k, model).texts)) == 3


def test_more_unreadable_clips_than_allowed_name_the_first_three(folder):
    for k in (0, 2, 3, 4):
        damage(folder / f"{k}.mp4", "empty")
    text = refusal(folder, quarantine=0.5)
    assert "4 of 6 clips" in text
    assert all(f"{k}.mp4 is empty" in text for k in (0, 2, 3))
    assert "and 1 more." in text


def test_a_missing_clip_of_a_table_counts_as_unreadable(folder, model):
    rows = [{"file_name": f"{k}.mp4", "caption": f"clip {k}"} for k in (1, 9)]
    (folder / "metadata.jsonl").write_text(jsonl(*rows))
    assert "there is no video at" in refusal(folder)
    assert opened(folder, quarantine=0.5).clips(1, 0, model).texts == ("clip 1",)


def test_damage_that_only_decoding_finds_is_left_out_without_moving_other_draws(folder, model, new_model):
    data = bytearray((folder / "2.mp4").read_bytes())
    data[-500:-100] = bytes(400)
    (folder / "2.mp4").write_bytes(data)
    fresh, used = opened(folder, quarantine=0.2), opened(folder, quarantine=0.2)
    assert used.counts["unreadable"] == 0
    for k in range(6):
        used.clips(2, k, model)
    assert used.counts["unreadable"] == 1
    for k in reversed(range(6)):
        assert fresh.clips(2, k, model).texts == used.clips(2, k, model).texts
    strict = opened(folder)
    with pytest.raises(BadData, match=r"1 of 6 clips .* allows a share of 0"):
        strict.clips(6, 0, new_model())


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
    dataset = opened(folder, quarantine=1.0)
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


@pytest.mark.parametrize(
    "name", ["../out.mp4", "sub/../../out.mp4", "C:\\out.mp4", "..\\out.mp4", "~/out.mp4", "a\0.mp4"]
)
@pytest.mark.parametrize("layout", ["table", "lists"])
def test_a_path_that_leaves_the_folder_is_refused(folder, save, name, layout):
    save(folder.parent / "out.mp4")
    check_escape(folder, name, layout)


@pytest.mark.parametrize("layout", ["table", "lists"])
def test_an_absolute_path_is_refused_even_into_the_folder(folder, layout):
    check_escape(folder, str(folder / "0.mp4"), layout)


def check_escape(folder: Path, name: str, layout: str) -> None:
    if layout == "table":
        rows = [{"file_name": "0.mp4", "caption": "fine"}, {"file_name": name, "caption": "not fine"}]
        (folder / "metadata.jsonl").write_text(jsonl(*rows))
    else:
        (folder / "prompts.txt").write_text("fine\nnot fine\n")
        (folder / "videos.txt").write_text(f"0.mp4\n{name}\n")
    text = refusal(folder)
    assert ", line 2: " in text
    assert "leaves the folder" in text


def test_a_symbolic_link_may_not_leave_the_folder_but_may_stay(folder, save, model):
    (folder / "6.mp4").symlink_to(folder / "0.mp4")
    (folder / "6.txt").write_text("clip 0")
    assert len(opened(folder).all_prompts().texts) == 7
    save(folder.parent / "out.mp4", 1)
    (folder / "7.mp4").symlink_to(folder.parent / "out.mp4")
    (folder / "7.txt").write_text("clip 1")
    assert "'7.mp4' leaves the folder" in refusal(folder)


def test_a_caption_may_not_be_a_link_to_a_secret(folder):
    (folder.parent / "secret").write_text("secret")
    (folder / "0.txt").unlink()
    (folder / "0.txt").symlink_to(folder.parent / "secret")
    assert "'0.txt' leaves the folder" in refusal(folder)


def test_the_folder_itself_may_be_a_link(folder, model):
    (folder.parent / "link").symlink_to(folder)
    assert len(opened(folder.parent / "link").clips(6, 0, model).texts) == 6


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{oops", "no valid JSON (Expecting property name"),
        ("[1]", "a JSON list; each line must be one JSON object"),
        ("[" * 100_000, "no valid JSON (nested too deeply)"),
        ('{"caption": "x"}', "no 'file_name', only 'caption'; add 'file_name'"),
        ('{"file_name": "0.mp4", "caption": 3}', "'caption' is 3; it must be a text that is not empty"),
        ('{"file_name": "0.mp4", "caption": " "}', "'caption' is ' '; it must be a text that is not empty"),
        (
            '{"file_name": "0.mp4", "title": "x"}',
            "no caption among 'file_name', 'title'; one column of caption, prompt",
        ),
        ('{"file_name": "0.mp4", "text": "x", "prompt": "y"}', "captions in both prompt and text; one column of"),
    ],
)
def test_a_bad_line_of_a_table_is_named(folder, line, words):
    (folder / "metadata.jsonl").write_text(f'{{"file_name": "0.mp4", "caption": "fine"}}\n\n{line}\n')
    text = refusal(folder)
    assert f"{folder / 'metadata.jsonl'}, line 3: " in text
    assert words in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty; its first line must name the columns"),
        ("file_name,caption\n0.mp4,a, b\n", "line 2: more or fewer cells than the 2 columns"),
        ("file_name,caption\n0.mp4\n", "line 2: more or fewer cells than the 2 columns"),
        ('file_name,caption\n0.mp4,"a\n', "no valid CSV"),
        ("file_name,caption\n", "holds no clips"),
    ],
)
def test_a_bad_csv_table_is_named(folder, content, words):
    (folder / "metadata.csv").write_text(content)
    assert words in refusal(folder)


def test_the_caption_column_can_be_chosen_and_must_be_there(folder):
    (folder / "metadata.jsonl").write_text('{"file_name": "0.mp4", "text": "x", "long": "y"}\n')
    assert opened(folder, caption_column="long").all_prompts().texts == ("y",)
    assert "line 1: no 'short', only 'file_name', 'text', 'long'; add 'short'." in refusal(
        folder, caption_column="short"
    )
    (folder / "metadata.jsonl").unlink()
    assert "with a column 'long'" in refusal(folder, caption_column="long")


def test_two_descriptions_of_one_folder_are_refused(folder):
    (folder / "metadata.jsonl").touch()
    (folder / "metadata.csv").touch()
    assert "more than once (metadata.jsonl, metadata.csv)" in refusal(folder)


def test_lists_that_do_not_go_together_are_refused(folder):
    (folder / "videos.txt").write_text("0.mp4\n1.mp4\n")
    assert "has no captions beside it" in refusal(folder)
    (folder / "prompts.txt").write_text("a\n")
    assert re.search(r"prompts\.txt has 1 lines and .*videos\.txt 2", refusal(folder))
    (folder / "prompts.txt").write_text("\nb\n")
    assert "prompts.txt, line 1: empty" in refusal(folder)
    (folder / "captions.txt").write_text("a\nb\n")
    assert "more than once (prompts.txt, captions.txt, videos.txt)" in refusal(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_a_caption_without_permission_is_named(folder):
    (folder / "0.txt").chmod(0)
    assert "cannot be read (Permission denied)" in refusal(folder)


@pytest.mark.skipif(not SHOWCASE.is_dir(), reason="the showcase clips are not here")
def test_showcase_clips_are_resized_to_a_small_model(tmp_path, new_model):
    for name in ("case4-baseline.mp4", "case4-ours.mp4"):
        (tmp_path / name).write_bytes((SHOWCASE / name).read_bytes())
        (tmp_path / name).with_suffix(".txt").write_text("bulbs, stars and snow")
    small = new_model(frames=13, height=32, width=32)
    x0 = opened(tmp_path, fit="resize").clips(2, 0, small).x0
    assert x0.shape == (2, 3, 13, 32, 32)
    assert x0.std() > 0.05
