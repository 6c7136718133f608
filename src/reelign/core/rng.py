"""Randomness with a name: a seed follows from what a draw is for, so it does not depend on who draws it or when.

Noise is drawn on the CPU and moved by the caller; the same name gives the same noise on every device layout.
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_LOW_BITS = 32


def seed_for(run_seed: int, *keys: int | str) -> int:
    """A 63-bit seed from the run's seed and the name of the draw.

    Each key enters with its type and its length, so that ``("1", 2)``, ``(1, "2")`` and ``("12",)`` are three names.

    Args:
        run_seed: the seed of the run.
        *keys: whole numbers and strings, e.g. ``"rollout", step, prompt, member, k``.

    Raises:
        TypeError: for any other key; floats and booleans do not name anything reliably.

    Example:
        >>> seed_for(0, "rollout", 3) == seed_for(0, "rollout", 4)
        False
    """
    digest = hashlib.blake2b(digest_size=8)
    for key in (run_seed, *keys):
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise TypeError(f"{key!r} cannot name a draw; use whole numbers and strings")
        payload = str(key).encode()
        digest.update(f"{type(key).__name__}:{len(payload)}:".encode() + payload)
    return int.from_bytes(digest.digest(), "big") >> 1


def generator(seed: int) -> torch.Generator:
    """A CPU generator that no other draw shares. It reads the low 32 bits of the seed only, as torch does."""
    return torch.Generator().manual_seed(seed)


def normal(shape: Sequence[int], *, seed: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "*shape"]:
    """Standard Gaussian noise on the CPU that belongs to one seed.

    Args:
        shape: of the result.
        seed: 63 bits, from `seed_for`.
        dtype: of the result.
    """
    return normals([seed], shape, dtype)[0]


def normals(
    seeds: Sequence[int], shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "b *shape"]:
    """One noise per seed, stacked; a row is the same whatever its neighbours are."""
    size = tuple(shape)
    magnitude = torch.empty(len(seeds), *size, dtype=dtype)
    signs = torch.empty(len(seeds), *size, dtype=torch.int8)
    for seed, row, sign in zip(seeds, magnitude, signs, strict=True):
        torch.randn(size, generator=generator(seed), out=row)
        # torch's CPU generator ignores all but 32 bits of a seed, so among a million named draws about a hundred would
        # coincide. Signs from the other half keep the law and make such twins uncorrelated.
        torch.randint(0, 2, size, generator=generator(seed >> _LOW_BITS), out=sign)
    return torch.where(signs == 0, magnitude, -magnitude)


def uniform(shape: Sequence[int], *, seed: int) -> Float[Tensor, "*shape"]:
    """Numbers in [0, 1) on the CPU that belong to one seed."""
    return torch.rand(tuple(shape), generator=generator(seed))


def integer(n: int, *, seed: int) -> int:
    """A whole number in ``0 .. n - 1`` that belongs to one seed."""
    if n < 1:
        raise ValueError(f"cannot choose among {n} possibilities")
    return int(torch.randint(n, (), generator=generator(seed)))


def permutation(n: int, *, seed: int) -> list[int]:
    """The numbers ``0 .. n - 1`` in an order that belongs to one seed."""
    return torch.randperm(n, generator=generator(seed)).tolist()
