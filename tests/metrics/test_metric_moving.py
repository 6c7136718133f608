"""How much of a clip moves, and whether a frame flickers, for clips whose answers are known."""

import torch
from torch.testing import assert_close

from reelign import parts
from reelign.batches import Videos, requests


def _measure(frames: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(
        parts.build("metric", parts.configure("metric", "moving"))(Videos(frames, 8.0), requests([""] * len(frames)))
    )


def test_the_changed_area_is_the_share_of_pixels_that_change() -> None:
    frames = torch.full((3, 4, 3, 8, 8), 0.5)
    frames[1, ::2, :, :2] = 0.7  # a quarter, by 0.1 around its mean
    frames[2, ::2, :, :2] = 0.58  # by 0.04, less than `change`
    assert_close(_measure(frames)["changed_area"], torch.tensor([0.0, 0.25, 0.0]))


def test_a_frame_flickers_from_a_share_of_the_median_frames_brightness_on() -> None:
    frames = torch.full((3, 5, 3, 8, 8), 0.5)
    frames[1, 2] = 0.5 * 0.86
    frames[2, 2] = 0.5 * 0.84
    assert_close(_measure(frames)["flicker_free_share"], torch.tensor([1.0, 1.0, 0.0]))
