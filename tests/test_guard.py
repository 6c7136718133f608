"""What others' code leaves changed is put back, and what it writes into is its own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reelign.batches import Videos
from reelign.guard import Lent, restored


def _videos() -> Videos:
    return Videos(torch.linspace(0, 1, 2 * 3 * 3 * 4 * 4).reshape(2, 3, 3, 4, 4), 8.0)


@pytest.mark.parametrize(
    ("read", "change"),
    [
        (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
        (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
        (torch.get_default_device, lambda: torch.set_default_device("meta")),
        (torch.get_num_threads, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
        (torch.are_deterministic_algorithms_enabled, lambda: torch.use_deterministic_algorithms(True)),
        (lambda: torch.get_rng_state().tolist(), lambda: torch.manual_seed(7)),
    ],
)
def test_a_setting_of_torch_is_put_back_even_after_an_error(read: Callable[[], Any], change: Callable[[], Any]) -> None:
    def fail() -> None:
        with restored():
            change()
            assert read() != before
            raise ZeroDivisionError

    before = read()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert read() == before


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "in place": lambda frames: frames.sub_(0.5),
    "a view": lambda frames: frames[0].zero_(),
    "data": lambda frames: frames.data.mul_(2),
    "numpy": lambda frames: np.negative(frames.numpy(), out=frames.numpy()),
    "numpy of a view": lambda frames: frames[1, 0].numpy().fill(3),
    "out": lambda frames: torch.mul(frames, 2, out=frames),
    "another shape": lambda frames: frames.transpose_(1, 2),
    "another storage": lambda frames: frames.set_(torch.zeros(1)),
    "its gradient": lambda frames: frames.requires_grad_(),
    "inference mode": lambda frames: torch.inference_mode()(frames.zero_)(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_reader_that_writes_spoils_a_copy_of_its_own(write: Callable[[Tensor], Any]) -> None:
    videos = _videos()
    lent = Lent(videos)
    with torch.no_grad():
        write(lent.videos().frames)
    assert torch.equal(videos.frames, _videos().frames)
    following = lent.videos().frames
    assert torch.equal(following, _videos().frames)
    assert not following.requires_grad


def test_readers_that_only_read_get_the_same_tensor_and_no_copy() -> None:
    videos = _videos()
    lent = Lent(videos)
    first = lent.videos().frames
    assert first.mean() > 0
    assert first[0].flatten().float() is not first
    assert lent.videos().frames is first
    assert torch._C._is_cow_tensor(first)  # still shares its memory with what was lent


def test_memory_of_numpy_is_lent_as_copies() -> None:
    videos = Videos(torch.from_numpy(_videos().frames.numpy().copy()), 8.0)
    lent = Lent(videos)
    lent.videos().frames.numpy()[:] = 7
    assert torch.equal(videos.frames, _videos().frames)
    assert torch.equal(lent.videos().frames, _videos().frames)


def test_frames_in_memory_that_torch_did_not_allocate_are_one_tensor_to_all_who_only_read() -> None:
    """Frames that wait outside the heap are such; by the tensor readers remember what they saw in it."""
    lent = Lent(Videos(torch.from_numpy(np.zeros((1, 2, 3, 4, 4), dtype=np.float32)), 8.0))
    first = lent.videos().frames
    assert lent.videos().frames is first
    first.add_(1)
    assert not lent.videos().frames.any()
