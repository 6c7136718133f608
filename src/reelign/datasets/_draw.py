"""What data sets share: which items a draw takes, a function of (how many, which draw); prompts; their digest.

There is no position to remember or restore.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Never

from reelign.batches import Clips, Pairs, Prompts, Request, Size
from reelign.core import rng
from reelign.errors import BadConfig, BadData
from reelign.protocols import Geometry, VideoModel

_INSTEAD = {"clips": "clip_folder or playground", "pairs": "pair_list"}


class Source:
    """A data set that has prompts, and refuses what its `Config` does not give."""

    def __init__(self, config: Any, place: str) -> None:
        """Keep its settings, with the seed of its shuffles; sentences call it `place`."""
        self._config, self._place = config, place

    def all_prompts(self) -> Prompts:
        """Every prompt, in an order that stays."""
        raise NotImplementedError

    def prompts(self, n: int, group: int, seed: int) -> Prompts:
        """Draw number `seed` of `n` different prompts; consecutive numbers show every one once an epoch."""
        return drawn(self.all_prompts(), n, group, seed, self._config.seed, self._place)

    def fit(self, geometry: Geometry) -> None:
        """Take any geometry where there are no clips."""

    def clips(self, n: int, seed: int, model: VideoModel) -> Clips:
        """Refuse.

        Raises:
            BadConfig: always.
        """
        self._refuse("clips")

    def pairs(self, n: int, seed: int, model: VideoModel) -> Pairs:
        """Refuse.

        Raises:
            BadConfig: always.
        """
        self._refuse("pairs")

    def _refuse(self, wanted: str) -> Never:
        gives = " and ".join(sorted(self._config.gives))
        raise BadConfig(f"{self._config.name} gives {gives} only; for {wanted} use the dataset {_INSTEAD[wanted]}.")


def digest(items: Iterable[Sequence[object]]) -> str:
    """sha256 over names, sizes and texts in their order; changes when one of them does."""
    found = hashlib.sha256()
    for item in items:
        found.update(json.dumps(item).encode() + b"\n")
    return found.hexdigest()


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(rng.permutation(size, seed=rng.seed_for(seed, "epoch", epoch)))


def order(size: int, n: int, draw: int, seed: int) -> list[int]:
    """All items in the order in which draw number `draw` considers them; it takes the first `n`.

    An epoch is the `ceil(size / n)` draws that together show every item; consecutive numbers go through one epoch after
    the other, each in its own shuffle. The last draw of an epoch is filled up from the epoch's beginning, so a draw of
    `n <= size` never holds an item twice. A draw number that is itself a random seed gives a random draw.

    Args:
        size: number of items, at least 1.
        n: items a draw takes, at least 1.
        draw: which draw.
        seed: of the shuffles.

    Example:
        >>> [order(6, 2, draw, seed=0)[:2] for draw in range(3)]
        [[4, 1], [3, 2], [0, 5]]
    """
    epoch, slot = divmod(draw, -(-size // n))
    shuffled, start = _order(size, seed, epoch), slot * n % size
    return [*shuffled[start:], *shuffled[:start]]


def drawn(everything: Prompts, n: int, group: int, draw: int, seed: int, source: str) -> Prompts:
    """Draw number `draw` of `n` different prompts, all of one size: which one, the number of the draw decides.

    Consecutive numbers show every prompt once an epoch, those of all sizes mixed.

    Raises:
        BadData: there are fewer than `n` of a size; the same prompt twice would get the same noise, hence the same
            videos.
    """
    everything, draw = _bucket(everything, n, draw, seed)
    size = len(everything)
    if n > size:
        raise BadData(
            f"{source} has {size} prompts, but {n} different ones are drawn at once; add prompts or draw fewer."
        )
    chosen = order(size, n, draw, seed)[:n]
    return Prompts(tuple(everything.requests[i] for i in chosen), group)


def _bucket(everything: Prompts, n: int, draw: int, seed: int) -> tuple[Prompts, int]:
    """The prompts of the size that a draw takes, and which of their own draws it is."""
    buckets: dict[Size | None, list[Request]] = {}
    for request in everything.requests:
        buckets.setdefault(request.size, []).append(request)
    if len(buckets) < 2:
        return everything, draw
    # As many places in an epoch as a size needs draws to show all its prompts.
    places = [size for size, own in buckets.items() for _ in range(-(-len(own) // n))]
    epoch, slot = divmod(draw, len(places))
    mixed = [places[i] for i in _order(len(places), rng.seed_for(seed, "sizes"), epoch)]
    size = mixed[slot]
    return Prompts(tuple(buckets[size]), everything.group), epoch * places.count(size) + mixed[:slot].count(size)
