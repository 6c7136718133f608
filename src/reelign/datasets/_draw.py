"""Which items a draw takes: a function of (how many, which draw), without a position to remember or restore."""

from functools import lru_cache

from reelign.batches import Prompts
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
    """Draw number `draw` of `n` different prompts.

    Raises:
        BadData: there are fewer than `n`; the same prompt twice would get the same noise, hence the same videos.
    """
    size = len(everything)
    if n > size:
        raise BadData(
            f"{source} has {size} prompts, but {n} different ones are drawn at once; add prompts or draw fewer."
        )
    chosen = order(size, n, draw, seed)[:n]
    return Prompts(tuple(everything.requests[i] for i in chosen), group)
