"""Latents of clips: each encoded once, in whichever run, and for what is in the file rather than for its name."""

import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parts.identity_model import IdentityModel
from torch.testing import assert_close

from reelign import video
from reelign.datasets import _clips, _latents, clip_folder, pair_list, playground
from reelign.errors import BadData
from reelign.playground.world import tables
from reelign.store import DiskStore, Memory

Make = Callable[..., Any]


@pytest.fixture
def keeping(new_model: Make, tmp_path: Path) -> Make:
    """Models of one codec, as runs that share a store build them."""

    def make(codec: str = "codec", **shape: Any) -> IdentityModel:
        model = new_model(**shape)
        model.codec_identity, model.store = codec, DiskStore(tmp_path / "store", 1.0, 1.0)
        return model

    return make


def opened(path: Path, **config: object) -> clip_folder.ClipFolder:
    return clip_folder.build(clip_folder.Config(path=path, **config))


def test_the_next_run_finds_what_a_run_has_encoded(folder: Path, keeping: Make) -> None:
    first, second = keeping(), keeping()
    made = opened(folder).clips(6, 0, first)
    found = opened(folder).clips(6, 0, second)
    assert (first.encoded, second.encoded) == (6, 0)
    assert torch.equal(made.x0, found.x0)
    assert made.texts == found.texts


@pytest.mark.parametrize(
    ("config", "model"),
    [({}, {"codec": "another"}), ({"fit": "resize"}, {}), ({"fit": "resize"}, {"height": 6})],
    ids=str,
)
def test_another_codec_cut_or_size_encodes_anew(
    folder: Path, keeping: Make, config: dict[str, Any], model: dict[str, Any]
) -> None:
    opened(folder).clips(6, 0, keeping())
    again = keeping(**model)
    opened(folder, **config).clips(6, 0, again)
    assert again.encoded == 6


def test_starts_of_a_clip_do_not_stand_for_each_other(tmp_path: Path, save: Make, keeping: Make) -> None:
    save(tmp_path / "clips" / "a.mp4", 0, "long", frames=40)
    starts = [{"start": "first"}, {"start": "middle"}, *({"start": "random", "seed": seed} for seed in (0, 1))]
    found = [opened(tmp_path / "clips", fit="resize", **start).clips(1, 0, keeping()).x0 for start in starts]
    assert len({latent.numpy().tobytes() for latent in found}) == 4
    again = keeping()
    for start, latent in zip(starts, found, strict=True):
        assert torch.equal(opened(tmp_path / "clips", fit="resize", **start).clips(1, 0, again).x0, latent)
    assert again.encoded == 0


def test_a_clip_is_known_by_what_is_in_it(folder: Path, tmp_path: Path, keeping: Make) -> None:
    opened(folder).clips(6, 0, keeping())
    moved = tmp_path / "moved"
    moved.mkdir()
    for number in range(6):
        shutil.copy(folder / f"{number}.mp4", moved / f"{5 - number}.mp4")
        (moved / f"{number}.txt").write_text(f"clip {number}")
    model = keeping()
    drawn = opened(moved).clips(6, 0, model)
    assert model.encoded == 0
    for x0, text in zip(drawn.x0, drawn.texts, strict=True):
        frames = video.read(moved / f"{text.split()[1]}.mp4").frames
        assert_close(x0, frames.transpose(0, 1), rtol=0, atol=0)


def test_new_contents_under_an_old_name_are_encoded(folder: Path, save: Make, clip: Make, keeping: Make) -> None:
    opened(folder).clips(6, 0, keeping())
    save(folder / "2.mp4", 77)
    model = keeping()
    drawn = opened(folder).clips(6, 0, model)
    assert model.encoded == 1
    assert_close(drawn.x0[drawn.texts.index("clip 2")], clip(77).transpose(0, 1), rtol=0, atol=1e-6)


def test_a_run_goes_on_with_what_it_has_seen_of_a_clip_that_is_gone(folder: Path, model: IdentityModel) -> None:
    dataset = opened(folder)
    before = dataset.clips(6, 0, model)
    (folder / "2.mp4").unlink()
    (folder / "3.mp4").write_bytes(b"no video")
    after = dataset.clips(6, 0, model)
    assert torch.equal(before.x0, after.x0)


def test_a_clip_that_was_changed_after_it_was_drawn_is_not_taken_for_itself(
    folder: Path, save: Make, new_model: Make, keeping: Make
) -> None:
    dataset, model = opened(folder), keeping()
    model.store = Memory(0.0)
    dataset.clips(6, 0, model)
    save(folder / "2.mp4", 77)
    with pytest.raises(BadData, match=r"2\.mp4 was changed while it was in use; put it back, or start a new run"):
        dataset.clips(6, 0, model)
    assert len(opened(folder).clips(6, 0, model).texts) == 6


def test_a_file_is_read_once_a_process_until_it_changes(
    folder: Path, model: IdentityModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    digest = _latents.digest
    monkeypatch.setattr(_latents, "digest", lambda path: read.append(path.name) or digest(path))
    _latents._content.cache_clear()
    for _ in range(2):
        opened(folder).clips(6, 0, model)
    assert sorted(read) == [f"{number}.mp4" for number in range(6)]
    os.utime(folder / "4.mp4", (1, 1))
    opened(folder).clips(6, 0, model)
    assert read[6:] == ["4.mp4"]


def test_latents_beyond_memory_are_encoded_again_to_the_same_bits(folder: Path, keeping: Make) -> None:
    model = keeping()
    each = 2 * mmap.PAGESIZE  # of 4 frames of 8 x 12
    model.store = Memory(2.5 * each / 2**30)
    dataset = opened(folder)
    found = [dataset.clips(6, 0, model).x0 for _ in range(3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert model.encoded > 6
    assert model.store._size <= 2.5 * each


def test_pairs_are_encoded_once_too(folder: Path, tmp_path: Path, keeping: Make) -> None:
    rows = [f'{{"prompt": "p{k}", "chosen": "{k}.mp4", "rejected": "{k + 1}.mp4"}}' for k in range(5)]
    (folder / "pairs.jsonl").write_text("\n".join(rows))
    opened(folder).clips(6, 0, keeping())
    model = keeping()
    drawn = pair_list.build(pair_list.Config(path=folder / "pairs.jsonl")).pairs(5, 0, model)
    assert model.encoded == 0
    assert drawn.chosen.shape[0] == 5


def test_the_playgrounds_clips_are_known_by_what_they_are_drawn_from(keeping: Make) -> None:
    def drawn(model: IdentityModel, **config: object) -> Any:
        return playground.build(playground.Config(**{"size": 70, "prompts": 4, **config})).clips(70, 0, model)

    shape = {"frames": tables.FRAMES, "height": 32, "width": 32}
    first, second, other = (keeping(**shape) for _ in range(3))
    made, found = drawn(first), drawn(second)
    assert (first.encoded, second.encoded) == (128, 0)
    assert made.texts == found.texts
    assert torch.equal(made.x0, found.x0)
    assert drawn(second, size=64).texts  # a smaller corpus is the beginning of the larger one
    assert second.encoded == 0
    for count, changed in enumerate(({"seed": 1}, {"what": "pretraining"}), start=1):
        assert not torch.equal(drawn(other, size=64, **changed).x0, made.x0[:64])
        assert other.encoded == 64 * count


def test_reading_says_which_version_of_its_library_reads(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    keys = []
    for reader in (_clips.READ, "another"):
        monkeypatch.setattr(_clips, "READ", reader)
        keys.append(opened(folder)._key(folder / "1.mp4"))
    assert keys[0] != keys[1]
