"""Several measures read the same videos: remember what was seen in them for as long as their tensor lives."""

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from reelign.batches import Videos

CHUNK = 16
"""Videos looked at together: intermediate maps of so many fit the processor's cache, which halves the time."""

Seen = TypeVar("Seen")


def _in_chunks(see: Callable[[Videos], Seen], videos: Videos) -> Seen:
    parts = [see(Videos(frames, videos.fps)) for frames in videos.frames.split(CHUNK)]
    first: Any = parts[0]
    joined = {f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(first)}
    return type(first)(**joined)


def remembered(see: Callable[[Videos], Seen]) -> Callable[[Videos], Seen]:
    """Call `see` once for each tensor of frames; frames changed in place since are seen anew.

    `see` returns a dataclass of tensors [b ...], which must not hold the frames themselves, or they would never be
    freed; it treats each video on its own, so videos are passed a few at a time.
    """
    known: Any = WeakTensorKeyDictionary()

    @wraps(see)
    def once(videos: Videos) -> Seen:
        frames = videos.frames
        if frames.is_inference():  # such tensors do not count their changes
            return _in_chunks(see, videos)
        found = known.get(frames)
        if found is None or found[0] != frames._version:
            found = (frames._version, _in_chunks(see, videos))
            known[frames] = found
        return found[1]

    return once
