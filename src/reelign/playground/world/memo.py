"""Several measures read the same videos: remember what was seen in them for as long as their tensor lives."""

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from reelign.batches import Videos

Seen = TypeVar("Seen")


def _in_chunks(see: Callable[[Videos], Seen], videos: Videos, chunk: int) -> Seen:
    parts = [see(Videos(frames, videos.fps)) for frames in videos.frames.split(chunk)]
    first: Any = parts[0]
    joined = {f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(first)}
    return type(first)(**joined)


def remembered(chunk: int) -> Callable[[Callable[[Videos], Seen]], Callable[[Videos], Seen]]:
    """Call a function once for each tensor of frames; frames changed in place since are seen anew.

    The function returns a dataclass of tensors [b ...], which must not hold the frames themselves, or they would never
    be freed; it treats each video on its own.

    Args:
        chunk: videos passed at a time: few enough that intermediate maps stay in the processor's cache, which may halve
            the time.
    """

    def decorate(see: Callable[[Videos], Seen]) -> Callable[[Videos], Seen]:
        known: Any = WeakTensorKeyDictionary()

        @wraps(see)
        def once(videos: Videos) -> Seen:
            frames = videos.frames
            if frames.is_inference():  # such tensors do not count their changes
                return _in_chunks(see, videos, chunk)
            found = known.get(frames)
            if found is None or found[0] != frames._version:
                found = (frames._version, _in_chunks(see, videos, chunk))
                known[frames] = found
            return found[1]

        return once

    return decorate
