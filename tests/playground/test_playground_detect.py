"""The quick forms that segmentation uses equal the plain ones."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from reelign.playground import detect


@pytest.mark.parametrize("length", [1, 2, 5, 1024])
def test_medians_are_torchs_bit_for_bit(length: int) -> None:
    values = torch.rand(4, 3, length, generator=torch.Generator().manual_seed(0))
    values[0] = values[0].round(decimals=1)  # with ties
    assert torch.equal(detect._medians(values), values.median(dim=-1).values)


@pytest.mark.parametrize("side", [3, 9])
def test_boxes_are_means_with_zeros_outside(side: int) -> None:
    maps = torch.rand(5, 12, 14, generator=torch.Generator().manual_seed(0))
    expected = F.avg_pool2d(maps[:, None], side, stride=1, padding=side // 2)[:, 0]
    assert_close(detect._boxed(maps, side), expected)
    if side == 3:
        assert_close(detect._thick(maps), expected)


def test_a_linear_map_of_pixels_is_the_sum_over_their_values() -> None:
    maps, matrix = torch.rand(2, 3, 4, 5, 6), torch.rand(7, 4)
    assert_close(detect._by_pixel(matrix, maps), torch.einsum("bfjyx,ij->bfiyx", maps, matrix))
