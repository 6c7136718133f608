"""Which items a draw takes: a function of (how many, which draw), without a position to remember or restore."""

from functools import lru_cache

from reelign.batches import Prompts, Request, Size
from reelign.core import rng
from reelign.errors import BadData


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
