"""Motion earns and brightness that jumps costs, by the halves that the config says."""

import pytest
import torch
from torch.testing import assert_close

from reelign import parts
from reelign.batches import Videos, requests


def _score(frames: torch.Tensor) -> torch.Tensor:
    reward = parts.build("reward", parts.configure("reward", "steady_motion"))
    return reward(Videos(frames, 8.0), requests([""] * len(frames)))["steady_motion"]


def _flipping(by: float) -> torch.Tensor:
    """A checkerboard of 32 x 32 pixels whose fields swap every frame: each changes by `by`, their mean does not."""
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2.0 - 1
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None, None]
    return (0.5 + by / 2 * sign * board).expand(4, 3, 32, 32)


@pytest.mark.parametrize(("by", "expected"), [(0.0, 0.0), (0.02, 0.5), (0.06, 0.75)])
def test_the_score_is_a_half_at_its_motion_and_rises_to_one(by: float, expected: float) -> None:
    assert_close(_score(_flipping(by)[None]), torch.tensor([expected]), rtol=1e-4, atol=1e-5)


def test_a_jump_of_brightness_halves_it_and_brightness_alone_is_no_motion() -> None:
    moving = _flipping(0.02)
    jumping, only = moving.clone(), torch.full((4, 3, 32, 32), 0.5)
    jumping[2:] += 0.04
    only[2:] += 0.04
    assert_close(_score(torch.stack([moving, jumping, only])), torch.tensor([0.5, 0.25, 0.0]), rtol=1e-3, atol=1e-5)


def test_one_frame_has_no_motion() -> None:
    assert _score(torch.rand(2, 1, 3, 8, 8)).tolist() == [0, 0]
