"""Several measures read the same videos: remember what was seen in them for as long as their tensor lives."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from torch.utils.weak import WeakTensorKeyDictionary

from reelign.batches import Videos

Seen = TypeVar("Seen")


def remembered(see: Callable[[Videos], Seen]) -> Callable[[Videos], Seen]:
    """Call `see` once for each tensor of frames; frames changed in place since are seen anew.

    What `see` returns must not hold the frames themselves, or they would never be freed.
    """
    known: Any = WeakTensorKeyDictionary()

    @wraps(see)
    def once(videos: Videos) -> Seen:
        frames = videos.frames
        if frames.is_inference():  # such tensors do not count their changes
            return see(videos)
        found = known.get(frames)
        if found is None or found[0] != frames._version:
            found = (frames._version, see(videos))
            known[frames] = found
        return found[1]

    return once
