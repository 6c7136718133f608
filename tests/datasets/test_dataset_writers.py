"""What the writers write, the data sets read; a write that fails leaves nothing to be mistaken for data."""

import json
import re

import pytest
import torch
from torch.testing import assert_close

from reelign.datasets import clip_folder, pair_list, prompt_file
from reelign.datasets._write import write_clip_folder, write_pairs, write_prompts
from reelign.errors import BadData, RunStopped
from reelign.video import _write


@pytest.fixture
def clips(clip) -> torch.Tensor:
    """Four clips that 8 bits hold exactly."""
    return torch.stack([clip(k) for k in range(4)])


def test_a_written_folder_reads_back_as_it_was(tmp_path, clips, model):
    captions = ["zwei Bären", "b", "c", "d"]
    folder = write_clip_folder(tmp_path / "made" / "here", clips, captions, 8)
    drawn = clip_folder.build(clip_folder.Config(path=folder)).clips(4, 0, model)
    assert sorted(drawn.texts) == sorted(captions)
    for x0, text in zip(drawn.x0, drawn.texts, strict=True):
        assert_close(x0, clips[captions.index(text)].transpose(0, 1), rtol=0, atol=1e-6)


def test_written_pairs_read_back_with_their_sides_and_ties(tmp_path, clips, model):
    path = write_pairs(tmp_path / "pairs.jsonl", ["a", "b", "c"], clips[:3], clips[1:], 8, ties={1})
    dataset = pair_list.build(pair_list.Config(path=path))
    assert dataset.counts == {"pairs": 2, "ties": 1, "left out": 0}
    drawn = dataset.pairs(2, 0, model)
    for chosen, rejected, text in zip(drawn.chosen, drawn.rejected, drawn.texts, strict=True):
        assert_close(chosen, clips["abc".index(text)].transpose(0, 1), rtol=0, atol=1e-6)
        assert_close(rejected, clips["abc".index(text) + 1].transpose(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_written_prompts_read_back(tmp_path, suffix):
    path = write_prompts(tmp_path / f"p{suffix}", ["ein Bär", 'a "cat"'])
    assert prompt_file.build(prompt_file.Config(path=path)).all_prompts().texts == ("ein Bär", 'a "cat"')


def test_slices_need_jsonl(tmp_path):
    slices = [{"animal": "bear"}, {}]
    path = write_prompts(tmp_path / "p.jsonl", ["a", "b"], slices)
    written = prompt_file.build(prompt_file.Config(path=path)).all_prompts()
    assert [request.slices for request in written.requests] == list(slices)
    with pytest.raises(BadData, match=r"write a \.jsonl file"):
        write_prompts(tmp_path / "p.txt", ["a", "b"], slices)
    with pytest.raises(BadData, match="2 prompts with 1 slices"):
        write_prompts(tmp_path / "p.jsonl", ["a", "b"], slices[:1])


@pytest.mark.parametrize("text", ["# no comment", "two\nlines"])
def test_prompts_that_a_text_line_cannot_hold_are_refused(tmp_path, text):
    with pytest.raises(BadData, match=r"write a \.jsonl file"):
        write_prompts(tmp_path / "p.txt", [text])


@pytest.mark.parametrize("texts", [[], ["a", " "]])
def test_prompts_must_not_be_empty(tmp_path, texts):
    with pytest.raises(BadData, match="none of which may be empty"):
        write_prompts(tmp_path / "p.txt", texts)


def test_nothing_is_written_over_an_older_data_set(tmp_path, clips):
    write_clip_folder(tmp_path / "clips", clips[:1], ["a"], 8)
    write_pairs(tmp_path / "pairs.jsonl", ["a"], clips[:1], clips[1:2], 8)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(BadData, match="exists and is not an empty folder"):
        write_clip_folder(tmp_path / "clips", clips[:2], ["a", "b"], 8)
    with pytest.raises(BadData, match=r"must end in .* and not exist yet"):
        write_pairs(tmp_path / "pairs.jsonl", ["a"], clips[:1], clips[1:2], 8)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_each_clip_needs_one_text(tmp_path, clips):
    with pytest.raises(BadData, match="4 clips with 1 texts"):
        write_clip_folder(tmp_path / "clips", clips, ["a"], 8)
    with pytest.raises(BadData, match="each clip needs one, not empty"):
        write_pairs(tmp_path / "pairs.jsonl", [" "], clips[:1], clips[1:2], 8)
    with pytest.raises(BadData, match="ties has 1; allowed are positions from 0 to 0"):
        write_pairs(tmp_path / "pairs.jsonl", ["a"], clips[:1], clips[1:2], 8, ties=[1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails_at", [0, 2])
def test_a_failed_write_leaves_nothing_that_could_be_read(tmp_path, clips, monkeypatch, fails_at):
    real, done = _write._encode, []

    def fail(*args: object) -> None:
        if len(done) == fails_at:
            raise OSError(28, "No space left on device")
        done.append(real(*args))

    monkeypatch.setattr(_write, "_encode", fail)
    with pytest.raises(RunStopped, match="No space left on device"):
        write_clip_folder(tmp_path / "clips", clips, ["a", "b", "c", "d"], 8)
    assert not list(tmp_path.iterdir())
    done.clear()
    with pytest.raises(RunStopped, match="No space left on device"):
        write_pairs(tmp_path / "pairs.jsonl", ["a", "b"], clips[:2], clips[2:], 8)
    assert not (tmp_path / "pairs.jsonl").exists()
    monkeypatch.setattr(_write, "_encode", real)
    path = write_pairs(tmp_path / "pairs.jsonl", ["a", "b"], clips[:2], clips[2:], 8)
    assert [json.loads(line)["prompt"] for line in path.read_text().splitlines()] == ["a", "b"]
    assert not [p for p in tmp_path.rglob("*") if re.search("tmp-", p.name)]
