"""What lies in a folder: containers, sub-folders, names, tables of other tools; what is not read is said."""

import json
import os
from pathlib import Path

import pytest
from tests.video.making import encode, numbered

from reelign.datasets import clip_folder
from reelign.errors import BadData

CONTAINERS = {
    "a.mp4": ("libx264", "yuv420p", None),
    "b.MOV": ("libx264", "yuv420p", "mov"),
    "c.m4v": ("libx264", "yuv420p", "mp4"),
    "d.mkv": ("libx264", "yuv420p", None),
    "e.webm": ("libvpx-vp9", "yuv420p", None),
    "f.avi": ("mpeg4", "yuv420p", None),
    "g.gif": ("gif", "rgb8", None),
}


def opened(path: Path, **config: object) -> clip_folder.ClipFolder:
    return clip_folder.build(clip_folder.Config(path=path, **config))


def refusal(path: Path, **config: object) -> str:
    with pytest.raises(BadData) as caught:
        opened(path, **config)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def texts(path: Path, **config: object) -> tuple[str, ...]:
    return opened(path, **config).all_prompts().texts


def test_every_container_is_a_clip(tmp_path, new_model):
    for name, (codec, pixels, container) in CONTAINERS.items():
        encode(tmp_path / name, numbered(9), codec, pixels, container=container)
        (tmp_path / name).with_suffix(".txt").write_text(name)
    dataset = opened(tmp_path)
    assert dataset.all_prompts().texts == tuple(CONTAINERS)
    assert sorted(dataset.clips(7, 0, new_model(9, 32, 32)).texts) == list(CONTAINERS)
    assert dataset.notes == ("7 clips read.",)


def test_sub_folders_are_read_and_captions_without_a_clip_are_named(tmp_path, save):
    for name in ("a", "day2/b", "day2/deep/c"):
        save(tmp_path / f"{name}.mp4", 0, f"caption of {name}")
    (tmp_path / "z.txt").write_text("a caption whose clip is missing")
    dataset = opened(tmp_path)
    assert dataset.all_prompts().texts == tuple(f"caption of {name}" for name in ("a", "day2/b", "day2/deep/c"))
    assert dataset.notes == ("3 clips read; 1 file left out: z.txt is a caption without a clip.",)
    assert dataset.counts == {"clips": 3, "left out": 0, "passed over": 1}


def test_hidden_files_and_folders_are_named_and_what_systems_leave_behind_is_counted(tmp_path, save):
    save(tmp_path / "a.mp4", 0, "a")
    save(tmp_path / ".b.mp4", 1, "b")
    save(tmp_path / ".git" / "c.mp4")
    for name in ("._a.mp4", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"what a system leaves behind")
    dataset = opened(tmp_path)
    assert dataset.left_out == {
        ".git/": ".git/ is a hidden folder",
        ".b.mp4": ".b.mp4 is a hidden file",
        ".b.txt": ".b.txt is a hidden file",
    }
    assert dataset.notes == (
        f"1 clip read; 2 files and 1 folder left out: {'; '.join(dataset.left_out.values())}; 3 leftovers of operating "
        "systems (such as .DS_Store) passed over.",
    )
    assert dataset.counts == {"clips": 1, "left out": 0, "passed over": 3}


def test_leftovers_alone_leave_nothing_out(folder):
    (folder / ".DS_Store").write_bytes(b"x")
    dataset = opened(folder)
    assert dataset.notes == ("6 clips read; 1 leftover of operating systems (such as .DS_Store) passed over.",)
    assert dataset.left_out == {}


def test_a_folder_that_is_called_like_a_clip_is_named_unless_clips_lie_in_it(tmp_path, save):
    save(tmp_path / "a.mp4", 0, "a")
    (tmp_path / "x.mp4").mkdir()
    (tmp_path / "x.txt").write_text("x")
    save(tmp_path / "y.mp4" / "b.mp4", 1, "b")
    dataset = opened(tmp_path)
    assert dataset.all_prompts().texts == ("a", "b")
    assert dataset.left_out == {
        "x.txt": "x.txt is a caption without a clip",
        "x.mp4/": "x.mp4/ is a folder without a clip in it",
    }
    assert "1 file and 1 folder left out" in dataset.notes[0]


def test_hidden_clips_that_a_table_names_are_read(folder):
    (folder / ".more").mkdir()
    (folder / "0.mp4").rename(folder / ".more" / "0.mp4")
    (folder / "1.mp4").rename(folder / ".1.mp4")
    rows = [{"file_name": name, "text": name} for name in (".more/0.mp4", ".1.mp4")]
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    dataset = opened(folder)
    assert dataset.all_prompts().texts == (".more/0.mp4", ".1.mp4")
    assert not [name for name in dataset.left_out if name[0] == "."]


def test_a_folder_of_hidden_clips_says_so(tmp_path, save):
    save(tmp_path / ".x.mp4", 0, "x")
    assert "holds no clips (but .x.mp4; .x.txt); put a.mp4" in refusal(tmp_path)


COMPOSED, APART = "B\u00e4r", "Ba\u0308r"
"""A bear as tables have it, and as macOS writes names of files."""


def test_a_caption_is_found_whatever_the_unicode_form_of_its_name(tmp_path, save):
    save(tmp_path / f"{APART}.mp4")
    (tmp_path / f"{COMPOSED}.txt").write_text("a bear")
    dataset = opened(tmp_path)
    assert dataset.all_prompts().texts == ("a bear",)
    assert dataset.left_out == {}


@pytest.mark.parametrize("layout", ["table", "lists"])
def test_a_clip_is_found_whatever_the_unicode_form_of_its_name(tmp_path, save, layout):
    save(tmp_path / APART / f"{APART}.mp4")
    name = f"{COMPOSED}/{COMPOSED}.mp4"
    if layout == "table":
        (tmp_path / "metadata.csv").write_text(f"file_name,text\n{name},a bear\n", encoding="utf-8")
    else:
        (tmp_path / "prompts.txt").write_text("a bear\n")
        (tmp_path / "videos.txt").write_text(f"{name}\n", encoding="utf-8")
    dataset = opened(tmp_path)
    assert dataset.notes == ("1 clip read.",)
    assert dataset.all_prompts().texts == ("a bear",)


def test_two_files_that_become_one_name_are_refused(tmp_path, save):
    save(tmp_path / f"{APART}.mp4", 0, "a bear")
    save(tmp_path / f"{COMPOSED}.mp4", 1, "another bear")
    said = r"by the names 'Ba\u0308r.mp4' and 'B\xe4r.mp4', which differ in their Unicode form only; remove or rename"
    assert said in refusal(tmp_path)
    # A table says which of them is meant.
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{COMPOSED}.mp4,a bear\n", encoding="utf-8")
    dataset = opened(tmp_path)
    assert dataset.notes[0].startswith("1 clip read; 3 files left out: ")
    assert f"{APART}.mp4" in dataset.left_out


def test_a_name_in_a_table_that_may_be_either_of_two_files_is_refused(tmp_path, save):
    for number, name in enumerate(("u\u0308\u0304", "\u00fc\u0304")):
        save(tmp_path / f"{name}.mp4", number)
    (tmp_path / "metadata.csv").write_text("file_name,text\n\u01d6.mp4,a vowel\n", encoding="utf-8")
    assert r"may be 'u\u0308\u0304.mp4' or '\xfc\u0304.mp4', which differ in their Unicode form only" in refusal(
        tmp_path
    )


def test_linked_folders_are_read_once_and_loops_end(tmp_path, save):
    save(tmp_path / "clips" / "a.mp4", 0, "a")
    save(tmp_path / "disk" / "b.mp4", 1, "b")
    (tmp_path / "clips" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "clips" / "again").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "clips")
    assert texts(tmp_path / "clips") == ("a", "b")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_a_sub_folder_without_permission_is_named(tmp_path, save):
    save(tmp_path / "closed" / "a.mp4", 0, "a")
    (tmp_path / "closed").chmod(0)
    text = refusal(tmp_path)
    (tmp_path / "closed").chmod(0o700)
    assert "closed cannot be read (Permission denied); check its permissions." in text


@pytest.mark.parametrize("names", [["video"], ["video", "prompt"], ["videos", "captions", "caption"], ["video", "a"]])
def test_the_text_of_a_clip_that_is_there_is_its_caption(tmp_path, save, names):
    for name in names:
        save(tmp_path / f"{name}.mp4", 0, f"caption of {name}")
    assert sorted(texts(tmp_path)) == sorted(f"caption of {name}" for name in names)


def test_captions_may_carry_the_whole_name_and_capitals(tmp_path, save):
    save(tmp_path / "a.mp4")
    save(tmp_path / "b.mp4")
    (tmp_path / "a.mp4.txt").write_text("a")
    (tmp_path / "b.TXT").write_text("b")
    assert texts(tmp_path) == ("a", "b")
    (tmp_path / "a.txt").write_text("another")
    assert "a.mp4 has two captions, a.txt and a.mp4.txt; remove one of them." in refusal(tmp_path)
    (tmp_path / "a.mp4.txt").rename(tmp_path / "a.TXT")
    assert "a.mp4 has two captions, a.TXT and a.txt; remove one of them." in refusal(tmp_path)


def test_files_of_a_kind_that_is_not_read_are_named(tmp_path, save):
    save(tmp_path / "a.mp4", 0, "a")
    for name in ("b.wmv", "b.txt", "LICENSE"):
        (tmp_path / name).write_text("x")
    left_out = opened(tmp_path).left_out
    assert left_out == {
        "b.wmv": "b.wmv is of a kind that is not read",
        "b.txt": "b.txt is a caption without a clip",
        "LICENSE": "LICENSE is neither clip nor caption",
    }
    for path in tmp_path.glob("a.*"):
        path.unlink()
    assert "holds no clips (but LICENSE; b.wmv); put a.mp4 with its caption" in refusal(tmp_path)


def test_a_name_that_is_not_utf8_is_read(tmp_path, save, model):
    for number in range(2):
        save(tmp_path / f"{number}.mp4", number, f"clip {number}", frames=8)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/B\xe4r"))
    (tmp_path / "0.mp4").rename(odd.with_suffix(".mp4"))
    (tmp_path / "0.txt").rename(odd.with_suffix(".txt"))
    dataset = opened(tmp_path, fit="resize", start="random")
    assert sorted(dataset.clips(2, 0, model).texts) == ["clip 0", "clip 1"]
    assert len(dataset.identity()["sha256"]) == 64


def test_clips_and_texts_that_no_table_names_are_said(folder):
    (folder / "metadata.jsonl").write_text('{"file_name": "0.mp4", "text": "x"}\n')
    dataset = opened(folder)
    assert dataset.counts == {"clips": 1, "left out": 0, "passed over": 11}
    assert "1.mp4 is not in metadata.jsonl, which describes the clips" in dataset.notes[0]


def test_a_table_in_a_sub_folder_is_pointed_at(tmp_path, save):
    save(tmp_path / "train" / "a.mp4")
    (tmp_path / "train" / "metadata.jsonl").write_text('{"file_name": "a.mp4", "text": "x"}\n')
    text = refusal(tmp_path)
    assert text.startswith(str(tmp_path / "train" / "metadata.jsonl"))
    assert text.endswith(" describes the clips of its own folder; set dataset.path to that folder.")
    assert texts(tmp_path / "train") == ("x",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", "video,prompt\n0.mp4,a red ball\n"),
        ("metadata.csv", "file_name;caption\n0.mp4;a red ball\n"),
        ("metadata.csv", '\ufeffpath; text\r\n0.mp4; "a red\r\n ball"\r\n\r\n'),
        ("metadata.csv", "id,Video,Caption\n7,0.mp4,a red ball\n"),
        ("metadata.tsv", "file\ttext\n0.mp4\ta red ball\n"),
        ("metadata.csv", "clip,file_name,path,text\n3,0.mp4,/else/where.mp4,a red ball\n"),
        ("metadata.jsonl", json.dumps({"video_path": "0.mp4", "caption": "a  red\nball"})),
    ],
)
def test_tables_of_other_tools_are_read(folder, name, content):
    (folder / name).write_text(content, newline="")
    assert texts(folder) == ("a red ball",)


def test_two_columns_that_may_name_the_clip_are_refused(folder):
    (folder / "metadata.csv").write_text("video,path,text\n0.mp4,1.mp4,x\n")
    assert "line 2: a clip in both video and path; one column of file_name, video," in refusal(folder)


def test_names_keep_their_spaces(folder):
    (folder / "0.mp4").rename(folder / "a  b.mp4")
    (folder / "metadata.jsonl").write_text('{"file_name": "a  b.mp4", "text": "x  y"}\n')
    assert texts(folder) == ("x y",)


def test_a_data_set_that_changes_is_another(folder, save, clip):
    before = opened(folder).identity()
    assert before == opened(folder).identity()
    assert before["clips"] == 6
    (folder / "0.txt").write_text("another caption")
    captioned = opened(folder).identity()
    (folder / "1.mp4").rename(folder / "9.mp4")
    (folder / "1.txt").rename(folder / "9.txt")
    renamed = opened(folder).identity()
    save(folder / "2.mp4", 2, "clip 2", height=16)
    resized = opened(folder).identity()
    assert len({row["sha256"] for row in (before, captioned, renamed, resized)}) == 4


def test_home_is_where_a_tilde_points(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(texts(Path("~/clips"))) == 6


@pytest.mark.parametrize("name", ["a" * 3000, "a\0"])
def test_names_that_the_system_refuses_get_a_short_sentence(name):
    text = refusal(Path(name))
    assert "cannot be read (" in text
    assert len(text) < 400
