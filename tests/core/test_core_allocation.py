"""Allocation maps: known components, the sign rule, and that sharing out credit never turns it around."""

import pytest
import torch
from torch.testing import assert_close

from reelign.core import allocation


def _scene(size: int = 9) -> torch.Tensor:
    """Features of one frame: a block in the middle that differs from everything around it."""
    features = 0.01 * torch.randn(1, 1, size, size, 8, generator=torch.Generator().manual_seed(0))
    features[:, :, 3:6, 3:6, 0] += 3.0
    return features


def test_known_components_give_one_of_the_four_maps_and_always_the_same() -> None:
    features = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).reshape(1, 1, 2, 2, 2)
    found = allocation.structure(features)
    allowed = ([0.1, 0.9, 0.4, 0.6], [0.9, 0.1, 0.4, 0.6], [0.1, 0.9, 0.6, 0.4], [0.9, 0.1, 0.6, 0.4])
    assert any(torch.allclose(found.flatten(), torch.tensor(a), atol=1e-6) for a in allowed)
    assert_close(allocation.structure(features.clone()), found, atol=0, rtol=0)


def test_what_stands_in_the_middle_is_important_whatever_its_sign() -> None:
    for sign in (1.0, -1.0):
        found = allocation.structure(sign * _scene())[0, 0]
        assert float(found[3:6, 3:6].min()) > float(found[0].max())


def test_a_frame_without_structure_has_an_even_map() -> None:
    assert_close(allocation.structure(torch.ones(2, 3, 4, 4, 8)), torch.full((2, 3, 4, 4), 0.5))


def test_maps_go_to_the_latent_grid_and_span_zero_to_one() -> None:
    maps = torch.rand(2, 9, 8, 8, generator=torch.Generator().manual_seed(0))
    found = allocation.to_latent(maps, (3, 4, 4))
    assert found.shape == (2, 3, 4, 4)
    assert_close(found.amin(dim=(1, 2, 3)), torch.zeros(2))
    assert_close(found.amax(dim=(1, 2, 3)), torch.ones(2))


def test_a_constant_map_is_all_ones() -> None:
    assert_close(allocation.to_latent(torch.full((1, 5, 4, 4), 0.3), (2, 4, 4)), torch.ones(1, 2, 4, 4), atol=0, rtol=0)
    known = torch.tensor([2.0, 4.0, 6.0]).reshape(1, 1, 1, 3)
    assert_close(allocation.stretched(known).flatten(), torch.tensor([0.0, 0.5, 1.0]))


def test_smoothing_keeps_the_mean_of_a_wide_map() -> None:
    maps = torch.zeros(1, 1, 21, 21)
    maps[0, 0, 10, 10] = 1.0
    smooth = allocation._smoothed(maps, 1.0)
    assert_close(smooth.sum().item(), 1.0, atol=1e-6, rtol=0)
    assert_close(smooth[0, 0, 10, 10].item(), 1 / (2 * torch.pi), atol=2e-3, rtol=0)


def test_credit_is_shared_out_and_keeps_its_sign() -> None:
    maps = torch.tensor([0.0, 0.25, 0.5, 1.0]).reshape(1, 1, 2, 2)
    assert_close(allocation.dense(torch.tensor([1.5]), maps).flatten(), torch.tensor([0.0, 0.375, 0.75, 1.5]))
    with pytest.raises(ValueError, match="negative weight"):
        allocation.dense(torch.tensor([1.0]), -maps)
    assert_close(allocation.mean_one(maps).mean().item(), 1.0)


def test_misplaced_mass_of_a_uniform_map_is_the_share_of_wrong_places() -> None:
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., :2] = 1
    assert_close(allocation.misplaced(torch.ones(1, 1, 4, 4), truth).item(), 0.5)
    assert_close(allocation.misplaced(truth, truth).item(), 0.0)


def test_frames_are_averaged_as_a_video_codec_groups_them() -> None:
    """The first frame alone, then four for each latent; nothing that one frame shows is passed over."""
    for frame, latent in enumerate([0, 1, 1, 1, 1, 2, 2, 2, 2]):
        maps = torch.zeros(1, 9, 4, 4)
        maps[:, frame, 0, 0] = 1
        found = allocation.to_latent(maps, (3, 4, 4), smooth=0.0)
        assert found.nonzero().tolist() == [[0, latent, 0, 0]]


def test_other_numbers_of_frames_are_interpolated() -> None:
    maps = torch.linspace(0, 1, 8)[None, :, None, None].expand(1, 8, 2, 2)
    found = allocation.to_latent(maps, (3, 2, 2), smooth=0.0)[0, :, 0, 0]
    assert_close(found, torch.tensor([0.0, 0.5, 1.0]), atol=1e-5, rtol=0)
