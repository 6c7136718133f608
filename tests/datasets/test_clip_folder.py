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
    assert dataset.counts == {"clips": 6, "left out": 0, "passed over": 0}
    assert dataset.notes == ("6 clips read.",)
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
    text = refusal(folder)
    assert "5 of 6 clips" in text
    assert "0.mp4 has no caption; 1.mp4 has no caption; 2.mp4 has no caption and 2 more, all of them in " in text
    assert text.endswith("; write each one's caption to a .txt file of the same name.")
    everyone = Path(re.search("all of them in ([^;]*);", text)[1])
    assert everyone.read_text().splitlines() == [f"{k}.mp4 has no caption" for k in range(5)]


def test_clips_without_a_caption_can_be_left_out(folder, model):
    (folder / "3.txt").unlink()
    dataset = opened(folder, quarantine=0.2)
    assert dataset.counts["left out"] == 1
    assert dataset.notes == ("5 clips read; 1 file left out: 3.mp4 has no caption.",)
    assert sorted(dataset.clips(5, 0, model).texts) == [f"clip {k}" for k in (0, 1, 2, 4, 5)]


def test_an_empty_caption_is_named(folder):
    (folder / "3.txt").write_text(" \n")
    assert "3.txt is empty; write the caption of 3.mp4 there." in refusal(folder)


def test_a_caption_that_is_not_utf8_is_named(folder):
    (folder / "3.txt").write_bytes(b"ein B\xe4r")
    assert "3.txt, line 1: not UTF-8 (byte 5); save it as UTF-8." in refusal(folder)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "garbage": b"no video" * 99, "truncated": data[: len(data) * 3 // 4]}[how])


@pytest.mark.parametrize("how", ["empty", "garbage", "truncated"])
def test_an_unreadable_clip_stops_by_default(folder, how):
    damage(folder / "2.mp4", how)
    text = refusal(folder)
    assert text.startswith(f"1 of 6 clips of {folder} cannot be read: ")
    assert text.endswith(
        "; mend or remove them, or set `quarantine: 0.17` in this dataset's settings to leave them out."
    )
    assert str(folder / "2.mp4") in text


def test_unreadable_clips_within_the_allowed_share_are_left_out_and_reported(folder, model):
    damage(folder / "2.mp4", "truncated")
    damage(folder / "4.mp4", "empty")
    dataset = opened(folder, quarantine=0.34)
    assert dataset.counts == {"clips": 6, "left out": 2, "passed over": 0}
    assert list(dataset.left_out) == ["2.mp4", "4.mp4"]
    assert "2 files left out" in dataset.notes[0]
    assert "4.mp4 is empty" in dataset.notes[0]
    assert sorted(dataset.clips(4, 0, model).texts) == ["clip 0", "clip 1", "clip 3", "clip 5"]
    for k in range(6):
        assert len(set(dataset.clips(3, k, model).texts)) == 3


def test_more_unreadable_clips_than_allowed_name_the_first_three(folder):
    for k in (0, 2, 3, 4):
        damage(folder / f"{k}.mp4", "empty")
    text = refusal(folder, quarantine=0.5)
    assert "4 of 6 clips" in text
    assert all(f"{k}.mp4 is empty" in text for k in (0, 2, 3))
    assert "and 1 more, all of them in " in text
    assert ", and quarantine: 0.5 allows fewer: " in text
    assert text.endswith("; mend or remove them.")
    assert opened(folder, quarantine=0.67).counts["left out"] == 4


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
    assert used.counts["left out"] == 0
    for k in range(6):
        used.clips(2, k, model)
    assert used.counts["left out"] == 1
    for k in reversed(range(6)):
        assert fresh.clips(2, k, model).texts == used.clips(2, k, model).texts
    strict = opened(folder)
    with pytest.raises(BadData, match=r"1 of 6 clips .* or start anew with `quarantine: 0.17` in"):
        strict.clips(6, 0, new_model())


@pytest.mark.parametrize("name", ["../out.mp4", "sub/../../out.mp4", "C:/out.mp4", "~/out.mp4", "/etc/passwd"])
@pytest.mark.parametrize("layout", ["table", "lists"])
def test_a_path_that_leaves_the_folder_is_refused(folder, save, name, layout):
    save(folder.parent / "out.mp4")
    check_escape(folder, name, layout)


@pytest.mark.parametrize(
    ("name", "words"), [("sub\\out.mp4", "has backslashes; write forward slashes."), ("a\0.mp4", "NUL")]
)
@pytest.mark.parametrize("layout", ["table", "lists"])
def test_a_path_that_is_written_otherwise_is_refused(folder, name, words, layout):
    check_escape(folder, name, layout, words)


def test_an_absolute_path_into_the_folder_is_read_however_the_folder_is_reached(folder, model, clip):
    (folder.parent / "link").symlink_to(folder)
    rows = [{"file_name": str(place / f"{k}.mp4"), "text": f"clip {k}"} for k, place in enumerate([folder] * 2)]
    rows.append({"file_name": str(folder.parent / "link" / "2.mp4"), "text": "clip 2"})
    (folder / "metadata.jsonl").write_text(jsonl(*rows))
    check_numbers(opened(folder), model, clip)


def check_escape(folder: Path, name: str, layout: str, words: str = "leaves the folder") -> None:
    if layout == "table":
        rows = [{"file_name": "0.mp4", "caption": "fine"}, {"file_name": name, "caption": "not fine"}]
        (folder / "metadata.jsonl").write_text(jsonl(*rows))
    else:
        (folder / "prompts.txt").write_text("fine\nnot fine\n")
        (folder / "videos.txt").write_text(f"0.mp4\n{name}\n")
    text = refusal(folder)
    assert ", line 2: " in text
    assert words in text


def test_clips_may_be_links_to_anywhere(folder, save, model, clip):
    (folder / "6.mp4").symlink_to(folder / "0.mp4")
    (folder / "6.txt").write_text("clip 0")
    save(folder.parent / "out.mp4", 7)
    (folder / "7.mp4").symlink_to("../out.mp4")
    (folder / "7.txt").write_text("clip 7")
    check_numbers(opened(folder), model, clip)


def test_a_link_to_something_else_than_a_clip_is_not_read(folder):
    (folder / "0.mp4").unlink()
    (folder / "0.mp4").symlink_to("/etc/passwd")
    text = refusal(folder)
    assert "0.mp4 is no video of a kind that is read" in text
    assert "root:" not in text


@pytest.mark.parametrize("name", ["0.txt", "metadata.jsonl", "prompts.txt"])
def test_a_text_may_not_be_a_link_to_a_secret(folder, name):
    (folder.parent / "secret").write_text("secret")
    (folder / "videos.txt").write_text("0.mp4\n") if name == "prompts.txt" else None
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(folder.parent / "secret")
    assert f"{name} is a symbolic link to {folder.parent / 'secret'}, and texts are read from" in refusal(folder)


def hub(folder: Path) -> Path:
    """The folder's files as the hub's cache keeps them: blobs, and a snapshot of links to them."""
    blobs, snapshot = folder.parent / "hub" / "blobs", folder.parent / "hub" / "snapshots" / "0a1b"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / f"{number:04x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:04x}")
    return snapshot


def test_the_hubs_cache_is_read_and_its_blobs_may_not_be_a_link_to_elsewhere(folder, model, clip):
    snapshot = hub(folder)
    check_numbers(opened(snapshot), model, clip)
    blobs = folder.parent / "hub" / "blobs"
    blobs.rename(folder.parent / "elsewhere")
    blobs.symlink_to(folder.parent / "elsewhere")
    assert "is a symbolic link to" in refusal(snapshot)


def test_the_folder_itself_may_be_a_link(folder, model):
    (folder.parent / "link").symlink_to(folder)
    assert len(opened(folder.parent / "link").clips(6, 0, model).texts) == 6


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{oops", "no valid JSON (Expecting property name"),
        ("[1]", "a JSON list; each line must be one JSON object"),
        ("[" * 100_000, "no valid JSON (nested too deeply"),
        ("1" * 5000, "or a number too long)"),
        ('{"file_name": "0.mp4", "text": "x", "text": "y"}', "'text' stands there twice; keep one of them"),
        (
            '{"file_name": "0.mp4", "text": "a \\ud83d"}',
            "is no valid text (half of an emoji, or a NUL); write it again",
        ),
        (
            '{"file_name": "0.mp4", "text": "a \\u0000"}',
            "is no valid text (half of an emoji, or a NUL); write it again",
        ),
        ('{"file_name": "0.mp4", "text": "' + "x" * 9000 + '"', "no valid JSON"),
        ('{"file_name": "0.mp4", "text": [' + "1," * 9000 + "1]}", "'text' is [1, 1, 1, 1, ...]; it must be a text"),
        ('{"caption": "x"}', "no clip among 'caption'; one column of file_name, video, video_path, path"),
        ('{"file_name": "0.mp4", "caption": 3}', "'caption' is 3; it must be a text that is not empty"),
        ('{"file_name": "0.mp4", "caption": " "}', "'caption' is ' '; it must be a text that is not empty"),
        (
            '{"file_name": "0.mp4", "title": "x"}',
            "no caption among 'file_name', 'title'; one column of caption, prompt",
        ),
        ('{"file_name": "0.mp4", "text": "x", "prompt": "y"}', "a caption in both prompt and text; one column of"),
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
        ("file_name,caption\n", "names no clips; write one a line"),
        ("file_name,text,text\n0.mp4,a,b\n", "line 1: the column 'text' stands there twice"),
        ("file_name,text\n0.mp4,a\0b\n", "line 2: a NUL character, which no text has"),
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
