"""Files of prompts: both forms, draws, and a sentence for each thing wrong with them."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelign.datasets import prompt_file
from reelign.errors import BadConfig, BadData


def opened(path: Path, content: str | bytes, **config: object) -> prompt_file.PromptFile:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return prompt_file.build(prompt_file.Config(path=path, **config))


def refusal(path: Path, content: str | bytes) -> str:
    with pytest.raises(BadData) as caught:
        opened(path, content)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    dataset = opened(tmp_path / "p.txt", "\ufeffa cat\n\n# a comment\r\n  a  dog \r\na cat")
    everything = dataset.all_prompts()
    assert everything.texts == ("a cat", "a dog", "a cat")
    assert everything.ids == (0, 1, 2)
    assert not any(request.slices for request in everything.requests)
    assert dataset.counts == {"prompts": 3, "duplicates": 1}


def test_repeated_prompts_are_reported(tmp_path):
    assert opened(tmp_path / "p.txt", "a\na\nb\na\n").notes == ("4 prompts read; 2 of them repeat others.",)
    assert opened(tmp_path / "p.txt", "a\nb\n").notes == ("2 prompts read.",)


def test_a_jsonl_file_has_slices_and_ids(tmp_path):
    rows = [{"prompt": "a cat", "slices": {"animal": "cat"}, "id": 7}, {"prompt": "a dog", "id": "dog-1"}]
    everything = opened(tmp_path / "p.jsonl", "\n".join(map(json.dumps, rows))).all_prompts()
    assert everything.texts == ("a cat", "a dog")
    assert [request.slices for request in everything.requests] == [{"animal": "cat"}, {}]
    assert everything.ids[0] == 7
    assert everything.ids[1] == opened(tmp_path / "q.jsonl", json.dumps(rows[1])).all_prompts().ids[0]


def test_prompts_without_ids_have_their_position(tmp_path):
    everything = opened(tmp_path / "p.jsonl", '{"prompt": "a"}\n\n{"prompt": "b"}\n').all_prompts()
    assert everything.ids == (0, 1)
    assert not any(request.slices for request in everything.requests)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**62))
def test_draws_are_functions_of_their_number_without_repeats(tmp_path_factory, size, n, draw):
    path = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    rows = [{"prompt": f"prompt {k}", "slices": {"number": str(k)}} for k in range(size)]
    dataset = opened(path, "\n".join(map(json.dumps, rows)))
    if n > size:
        with pytest.raises(BadData, match=f"has {size} prompts, but {n} different ones are drawn at once"):
            dataset.prompts(n, 4, draw)
        return
    drawn = dataset.prompts(n, 4, draw)
    assert drawn == dataset.prompts(n, 4, draw)
    assert len(set(drawn.ids)) == n
    assert drawn.texts == tuple(f"prompt {k}" for k in drawn.ids)
    assert [request.slices for request in drawn.requests] == [{"number": str(k)} for k in drawn.ids]
    assert drawn.group == 4


def test_consecutive_draws_cover_the_file(tmp_path):
    dataset = opened(tmp_path / "p.txt", "\n".join("abcdef"))
    assert sorted(text for k in range(3) for text in dataset.prompts(2, 1, k).texts) == list("abcdef")


@pytest.mark.parametrize("content", ["", "\n \n", "# only\n# comments\n", "\ufeff"])
def test_a_file_without_prompts_is_named(tmp_path, content):
    assert refusal(tmp_path / "p.txt", content) == f"{tmp_path / 'p.txt'} holds no prompts; write one a line."


def test_an_empty_jsonl_is_named(tmp_path):
    assert "holds no prompts" in refusal(tmp_path / "p.jsonl", "\n")


def test_a_missing_file_a_folder_and_another_format_are_named(tmp_path):
    with pytest.raises(BadData, match="there is no file at"):
        prompt_file.build(prompt_file.Config(path=tmp_path / "absent.txt"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(BadData, match="is not a file; give a text file"):
        prompt_file.build(prompt_file.Config(path=tmp_path / "folder.txt"))
    assert "is neither .txt nor .jsonl" in refusal(tmp_path / "p.csv", "prompt\na\n")


@pytest.mark.timeout(10)
def test_files_that_would_never_end_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "p.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    for name in ("p.txt", "zero.txt"):
        with pytest.raises(BadData, match="is not a file; give a text file"):
            prompt_file.build(prompt_file.Config(path=tmp_path / name))


@pytest.mark.parametrize("name", ["a" * 3000 + ".txt", "a\0.txt"])
def test_names_that_the_system_refuses_get_a_short_sentence(tmp_path, name):
    with pytest.raises(BadData, match=r"cannot be read \(.*\); give a text file") as caught:
        prompt_file.build(prompt_file.Config(path=tmp_path / name))
    assert len(str(caught.value)) < 400


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "p.txt").write_text("a\n")
    assert prompt_file.build(prompt_file.Config(path="~/p.txt")).all_prompts().texts == ("a",)


def test_a_nul_in_a_text_file_is_named_by_its_line(tmp_path):
    assert "line 2: a NUL character, which no text has" in refusal(tmp_path / "p.txt", "a\nb\0\n")


def test_text_that_is_not_utf8_is_named(tmp_path):
    assert "line 1: not UTF-8 (byte 3)" in refusal(tmp_path / "p.txt", b"abc\xff")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "a"', "no valid JSON"),
        ('"a"', "a JSON str"),
        ('{"text": "a"}', "no 'prompt', only 'text'; add 'prompt'"),
        ("{}", "no 'prompt', only nothing"),
        ('{"prompt": ""}', "it must be a text that is not empty"),
        ('{"prompt": "a", "size": [1, 2]}', "'size' is [1, 2]; write frames, height and width, as in [49, 480, 832]"),
        ('{"prompt": "a", "size": [1, 2, true]}', "'size' is [1, 2, True]; write frames, height and width"),
        ('{"prompt": "a", "negative": 3}', "'negative' is 3; "),
        ('{"prompt": "a", "first_frame": "../b.png"}', "'../b.png'"),
        (
            '{"prompt": "a", "slice": {}}',
            "unknown key 'slice'; allowed are prompt, negative, first_frame, last_frame, ",
        ),
        ('{"prompt": "a", "slices": "red"}', "'slices' is 'red'; write names and texts"),
        ('{"prompt": "a", "slices": {"n": 1}}', "write names and texts"),
        ('{"prompt": "a", "id": 1.5}', "'id' is 1.5"),
        ('{"prompt": "a", "id": true}', "'id' is True"),
        ('{"prompt": "a"}', "'id' is None; give every line a text or a whole number, or none an id"),
        (
            '{"prompt": "a", "id": 9223372036854775808}',
            "'id' is 9223372036854775808; whole numbers of up to 63 bits are ids",
        ),
        (f'{{"prompt": "a", "id": {"9" * 4000}}}', "'id' is a number of 13,288 bits; whole numbers of up to 63 bits"),
        ('{"prompt": "a \\ud83d"}', "'a \\ud83d' is no valid text (half of an emoji, or a NUL)"),
        ('{"prompt": "a", "slices": {"\\ud83d": "b"}}', "is no valid text"),
        ('{"prompt": "a", "slices": {"b": "\\u0000"}}', "is no valid text"),
        ('{"prompt": "a", "id": "\\ud83d"}', "is no valid text"),
        ('{"prompt": "a", "id": 1}', "id 1 stands in line 1 too; ids must differ"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, words):
    text = refusal(tmp_path / "p.jsonl", f'{{"prompt": "fine", "id": 1}}\n{line}\n')
    assert "p.jsonl, line 2: " in text
    assert words in text


def test_clips_and_pairs_are_refused_by_name(tmp_path, model):
    dataset = opened(tmp_path / "p.txt", "a\n")
    with pytest.raises(BadConfig, match="prompt_file gives prompts only; for clips use the dataset clip_folder"):
        dataset.clips(1, 0, model)
    with pytest.raises(BadConfig, match="prompt_file gives prompts only; for pairs use the dataset pair_list"):
        dataset.pairs(1, 0, model)
