"""The quick forms that segmentation uses equal the plain ones."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from reelign.batches import Videos
from reelign.playground.detector import credit, detect, segment
from reelign.playground.world import tables

Labelled = tuple[Videos, list[str]]


@pytest.mark.parametrize("length", [1, 2, 5, 1024])
def test_medians_are_torchs_bit_for_bit(length: int) -> None:
    values = torch.rand(4, 3, length, generator=torch.Generator().manual_seed(0))
    values[0] = values[0].round(decimals=1)  # with ties
    assert torch.equal(detect._medians(values), values.median(dim=-1).values)


@pytest.mark.parametrize("side", [3, 9])
def test_boxes_are_means_with_zeros_outside(side: int) -> None:
    maps = torch.rand(5, 12, 14, generator=torch.Generator().manual_seed(0))
    expected = F.avg_pool2d(maps[:, None], side, stride=1, padding=side // 2)[:, 0]
    assert_close(segment.boxed(maps, side), expected)
    if side == 3:
        assert_close(segment._thick(maps), expected)


def test_a_linear_map_of_pixels_is_the_sum_over_their_values() -> None:
    maps, matrix = torch.rand(2, 3, 4, 5, 6), torch.rand(7, 4)
    assert_close(segment._by_pixel(matrix, maps), torch.einsum("bfjyx,ij->bfiyx", maps, matrix))


def test_colours_passed_over_would_have_added_nothing(
    labelled: dict[str, Labelled], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = labelled["noise"][0].frames[:40]
    found = detect.detect(Videos(frames.clone(), 8.0))
    monkeypatch.setattr(segment, "ABSENT", -1.0)
    every = detect.detect(Videos(frames.clone(), 8.0))
    passed = found.area == 0
    assert passed.float().mean() > 0.3
    assert float(every.area[passed].max()) < 1e-3
    for name, near in (("area", 1e-3), ("stray", 1e-3), ("magenta", 1e-6), ("unlike", 1e-6)):
        assert_close(getattr(found, name), getattr(every, name), rtol=1e-5, atol=near, msg=name)
    for name in ("center", "moments"):
        assert_close(getattr(found, name)[~passed], getattr(every, name)[~passed], rtol=1e-4, atol=1e-4, msg=name)


def test_an_empty_scene_has_no_sprites_and_no_symbol() -> None:
    found = detect.detect(Videos(torch.full((2, tables.FRAMES, 3, tables.HEIGHT, tables.WIDTH), 0.08), 8.0))
    assert float(found.area.max()) == 0
    assert float(found.magenta.max()) == 0
    assert float(credit.symbol(found).max()) == 0
