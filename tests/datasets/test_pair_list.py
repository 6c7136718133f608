"""Lists of judged pairs: both forms, ties, draws, and a sentence for each thing wrong with them."""

import json
from pathlib import Path

import pytest
from torch.testing import assert_close

from reelign.datasets import pair_list
from reelign.errors import BadConfig, BadData

FINE = {"prompt": "fine", "chosen": "clips/0.mp4", "rejected": "clips/1.mp4"}


def opened(path: Path, *rows: dict[str, object] | str, **config: object) -> pair_list.PairList:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return pair_list.build(pair_list.Config(path=path, **config))


def refusal(path: Path, *rows: dict[str, object] | str, **config: object) -> str:
    with pytest.raises(BadData) as caught:
        opened(path, *rows, **config)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.fixture
def path(folder) -> Path:
    """Where a list beside the folder of clips goes."""
    return folder.parent / "pairs.jsonl"


def test_pairs_keep_their_sides_and_ties_are_counted_and_left_out(path, model, clip):
    tie = {"prompt": "tie", "chosen": "clips/4.mp4", "rejected": "clips/5.mp4", "label": "tie"}
    rows = [
        {"prompt": f"{a} over {b}", "chosen": f"clips/{a}.mp4", "rejected": f"clips/{b}.mp4"}
        for a, b in [(0, 1), (3, 2)]
    ]
    dataset = opened(path, rows[0], tie, rows[1])
    assert dataset.counts == {"pairs": 2, "ties": 1, "left out": 0}
    assert dataset.all_prompts().texts == ("0 over 1", "tie", "3 over 2")
    drawn = dataset.pairs(2, 0, model)
    assert sorted(drawn.texts) == ["0 over 1", "3 over 2"]
    for chosen, rejected, text in zip(drawn.chosen, drawn.rejected, drawn.texts, strict=True):
        assert_close(chosen, clip(int(text[0])).transpose(0, 1), rtol=0, atol=1e-6)
        assert_close(rejected, clip(int(text[-1])).transpose(0, 1), rtol=0, atol=1e-6)
    assert model.encoded == 4


def test_videoalign_tables_are_read_by_a_column_of_judgements(folder, model, clip):
    path = folder.parent / "pairs.csv"
    rows = [
        "path_A,path_B,prompt,VQ,MQ,fps_A",
        "clips/0.mp4,clips/1.mp4,first,A,same,8",
        "clips/2.mp4,clips/3.mp4,second,B,A,8",
    ]
    dataset = opened(path, *rows, judgement="VQ")
    assert dataset.counts == {"pairs": 2, "ties": 0, "left out": 0}
    drawn = dataset.pairs(2, 0, model)
    best = dict(zip(drawn.texts, drawn.chosen, strict=True))
    assert_close(best["first"], clip(0).transpose(0, 1), rtol=0, atol=1e-6)
    assert_close(best["second"], clip(3).transpose(0, 1), rtol=0, atol=1e-6)
    assert opened(path, *rows, judgement="MQ").counts["ties"] == 1
    text = refusal(path, *rows)
    assert "no column 'Overall'; columns with judgements are VQ, MQ: set dataset.judgement to one of them" in text
    assert "line 2: VQ is 'C'; allowed are A, B, same" in refusal(
        path, rows[0], rows[1].replace(",A,", ",C,"), judgement="VQ"
    )


def test_draws_are_functions_of_their_number_and_cover_an_epoch(path, model, new_model):
    rows = [
        {"prompt": f"pair {k}", "chosen": f"clips/{k}.mp4", "rejected": f"clips/{(k + 1) % 6}.mp4"} for k in range(6)
    ]
    first, second = opened(path, *rows), opened(path, *rows)
    late = second.pairs(2, 7, new_model())
    assert sorted(t for k in range(3) for t in first.pairs(2, k, model).texts) == [f"pair {k}" for k in range(6)]
    again = first.pairs(2, 7, model)
    assert again.texts == late.texts
    assert_close(again.rejected, late.rejected, rtol=0, atol=0)
    texts = first.pairs(8, 0, model).texts
    assert texts[6:] == texts[:2]
    assert model.encoded == 6


def test_a_pair_with_an_unreadable_clip_gives_way(path, folder, model):
    rows = [{"prompt": f"pair {k}", "chosen": f"clips/{k}.mp4", "rejected": f"clips/{k + 3}.mp4"} for k in range(3)]
    (folder / "4.mp4").write_bytes(b"")
    assert "1 of 6 clips" in refusal(path, *rows)
    dataset = opened(path, *rows, quarantine=0.2)
    assert dataset.counts == {"pairs": 3, "ties": 0, "left out": 1}
    assert sorted(dataset.pairs(2, 0, model).texts) == ["pair 0", "pair 2"]
    (folder / "3.mp4").write_bytes(b"")
    (folder / "5.mp4").write_bytes(b"")
    with pytest.raises(BadData, match=r"each pair of .* has a clip that is left out: "):
        opened(path, *rows, quarantine=0.5).pairs(1, 0, model)


def test_another_geometry_is_refused_and_can_be_resized(path, folder, save, new_model, model):
    save(folder / "wide.mp4", 9, frames=9, width=24, height=16, fps=16.0)
    rows = [FINE, {"prompt": "wide", "chosen": "clips/0.mp4", "rejected": "clips/wide.mp4"}]
    with pytest.raises(BadData, match=r"1 of 3 clips .* clips/wide\.mp4 has 9 frames of 24x16 at 16 fps"):
        opened(path, *rows).pairs(1, 0, model)
    assert opened(path, *rows, fit="resize").pairs(2, 0, model).rejected.shape == (2, 3, 4, 8, 12)


def test_prompts_are_those_of_the_list_without_repeats(path):
    rows = [FINE, FINE | {"rejected": "clips/2.mp4"}, FINE | {"prompt": "other"}]
    dataset = opened(path, *rows)
    assert dataset.all_prompts().texts == ("fine", "other")
    assert set(dataset.prompts(2, 1, 0).texts) == {"fine", "other"}


def test_clips_are_refused_by_name(path, model):
    with pytest.raises(
        BadConfig, match="pair_list gives pairs and prompts only; for clips use the dataset clip_folder"
    ):
        opened(path, FINE).clips(1, 0, model)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "no valid JSON"),
        ({"prompt": "a", "chosen": "clips/0.mp4"}, "no 'rejected', only 'prompt', 'chosen'; add 'rejected'"),
        (FINE | {"prompt": ""}, "'prompt' is ''; it must be a text that is not empty"),
        (FINE | {"chosen": 3}, "'chosen' is 3; it must be a text"),
        (FINE | {"label": "A"}, "'label' is 'A'; the only label is 'tie'"),
        (FINE | {"lable": "tie"}, "unknown key 'lable'; allowed are prompt, chosen, rejected, label"),
        (FINE | {"rejected": "clips/../clips/0.mp4"}, "leaves the folder"),
        (FINE | {"rejected": "./clips/0.mp4"}, "a pair needs two different clips"),
        (FINE | {"chosen": "../out.mp4"}, "'../out.mp4' leaves the folder"),
        (FINE | {"chosen": "/etc/passwd"}, "'/etc/passwd' leaves the folder"),
    ],
)
def test_a_bad_line_is_named(path, row, words):
    text = refusal(path, FINE, row)
    assert f"{path}, line 2: " in text
    assert words in text


def test_a_missing_clip_is_named(path):
    assert "there is no video at" in refusal(path, FINE | {"chosen": "clips/absent.mp4"})


def test_lists_without_pairs_are_named(path, tmp_path):
    assert "holds no pairs; write one a line" in refusal(path)
    assert "holds no pair to learn from (2 ties)" in refusal(path, *[FINE | {"label": "tie"}] * 2)
    assert "is neither .jsonl nor .csv" in refusal(path.with_suffix(".txt"))
    with pytest.raises(BadData, match="there is no file at"):
        pair_list.build(pair_list.Config(path=tmp_path / "absent.jsonl"))


def test_a_clip_is_found_whatever_the_unicode_form_of_its_name(path, model):
    composed, apart = "clips/B\u00e4r.mp4", "clips/Ba\u0308r.mp4"
    (path.parent / "clips" / "0.mp4").rename(path.parent / apart)
    assert opened(path, {**FINE, "chosen": composed}).pairs(1, 0, model).texts == ("fine",)
    assert "both clips are" in refusal(path, {**FINE, "chosen": composed, "rejected": apart})
