"""What the writers write, the data sets read; a write that fails leaves nothing to be mistaken for data."""

import pytest
import torch
from tests.parts.identity_model import IdentityModel
from torch.testing import assert_close

from reelign.datasets import clip_folder, prompt_file
from reelign.errors import BadData, RunStopped
from reelign.playground.writing import write_clip_folder, write_prompts
from reelign.video import _write


@pytest.fixture
def clips() -> torch.Tensor:
    """Four clips of 4 frames of 8 x 12 pixels that 8 bits hold exactly."""
    return torch.randint(0, 256, (4, 4, 3, 8, 12), generator=torch.Generator().manual_seed(0)) / 255


def test_a_written_folder_reads_back_as_it_was(tmp_path, clips):
    captions = ["zwei Bären", "b", "c", "d"]
    folder = write_clip_folder(tmp_path / "made" / "here", clips, captions, 8)
    drawn = clip_folder.build(clip_folder.Config(path=folder)).clips(4, 0, IdentityModel(4, 8, 12, 8.0))
    assert sorted(drawn.texts) == sorted(captions)
    for x0, text in zip(drawn.x0, drawn.texts, strict=True):
        assert_close(x0, clips[captions.index(text)].transpose(0, 1), rtol=0, atol=1e-6)


def test_written_prompts_read_back(tmp_path):
    texts = ("ein Bär", 'a "cat"', "# no comment", "two\\nlines")
    path = write_prompts(tmp_path / "p.jsonl", texts)
    assert prompt_file.build(prompt_file.Config(path=path)).all_prompts().texts == texts


def test_slices_go_with_their_prompts(tmp_path):
    slices = [{"animal": "bear"}, {}]
    path = write_prompts(tmp_path / "p.jsonl", ["a", "b"], slices)
    written = prompt_file.build(prompt_file.Config(path=path)).all_prompts()
    assert [request.slices for request in written.requests] == list(slices)
    with pytest.raises(BadData, match="2 prompts with 1 slices"):
        write_prompts(tmp_path / "p.jsonl", ["a", "b"], slices[:1])


@pytest.mark.parametrize("texts", [[], ["a", " "]])
def test_prompts_must_not_be_empty(tmp_path, texts):
    with pytest.raises(BadData, match="none of which may be empty"):
        write_prompts(tmp_path / "p.jsonl", texts)


def test_nothing_is_written_over_an_older_data_set(tmp_path, clips):
    write_clip_folder(tmp_path / "clips", clips[:1], ["a"], 8)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(BadData, match="exists and is not an empty folder"):
        write_clip_folder(tmp_path / "clips", clips[:2], ["a", "b"], 8)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_each_clip_needs_one_caption(tmp_path, clips):
    with pytest.raises(BadData, match="4 clips with 1 captions"):
        write_clip_folder(tmp_path / "clips", clips, ["a"], 8)
    with pytest.raises(BadData, match="each clip needs one, not empty"):
        write_clip_folder(tmp_path / "clips", clips[:1], [" "], 8)
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
