"""Noise levels of a sampler, and which of its steps are stochastic.

A table has ``n + 1`` levels from 1 down to 0; step ``k`` goes from level ``k`` to level ``k + 1``. The last one ends on
data, where a Gaussian transition would have no width: it is always deterministic.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.core import rng
from reelign.core.flow import PerSample


def shifted(sigma: Float[Tensor, "*n"], shift: float) -> Float[Tensor, "*n"]:
    """Move noise levels towards 1: ``shift sigma / (1 + (shift - 1) sigma)``; 1 changes nothing (arXiv 2403.03206)."""
    if shift <= 0:
        raise ValueError(f"shift is {shift}, but it must be positive; 1 leaves the levels as they are")
    return shift * sigma / (1 + (shift - 1) * sigma)


def sigmas(n: int, shift: float = 1.0, dtype: torch.dtype = torch.float32) -> Float[Tensor, " levels"]:
    """The table of a sampler with n steps, computed in float64 on the host and rounded once.

    Args:
        n: number of steps, at least 1.
        shift: see `shifted`; 1 spaces the levels evenly.
        dtype: of the result.

    Returns:
        ``[n + 1]`` falling levels; the first is exactly 1, the last exactly 0.

    Raises:
        ValueError: if n < 1 or shift <= 0.

    Example:
        >>> sigmas(4, 5.0)
        tensor([1.0000, 0.9375, 0.8333, 0.6250, 0.0000])
    """
    if n < 1:
        raise ValueError(f"a sampler needs at least one step, got {n}")
    even = torch.linspace(1, 0, n + 1, dtype=torch.float64)
    return shifted(even, shift).to(dtype)


def check_steps(n: int, steps: Iterable[int]) -> tuple[int, ...]:
    """Stochastic steps in order, each once, after refusing those that cannot be stochastic.

    Args:
        n: number of steps of the sampler.
        steps: step indices; allowed are 0 to n - 2.

    Raises:
        ValueError: for an index outside, in particular for the last step, which ends at ``sigma = 0``.
    """
    chosen = tuple(sorted(set(steps)))
    for k in chosen:
        if k == n - 1:
            raise ValueError(f"step {k} of {n} ends at sigma = 0 and cannot be stochastic; use steps 0 to {n - 2}")
        if not 0 <= k < n:
            raise ValueError(f"there is no step {k} in a sampler of {n} steps; use steps 0 to {n - 2}")
    return chosen


def refuse_terminal(sigma_next: PerSample, strength: PerSample) -> None:
    """Raise if noise would be added by a transition that ends on data."""
    if bool(((sigma_next <= 0) & (strength != 0)).any()):
        raise ValueError("a stochastic step cannot end at sigma = 0; make the last step deterministic (strength 0)")


def window(n: int, start: int, width: int) -> tuple[int, ...]:
    """``width`` neighbouring stochastic steps from ``start`` (MixGRPO, arXiv 2507.21802).

    Raises:
        ValueError: if the window is empty, leaves the sampler, or holds its last step.
    """
    if width < 1:
        raise ValueError(f"a window needs at least one step, got width {width}")
    return check_steps(n, range(start, start + width))


def sliding_window(n: int, width: int, iteration: int, every: int = 25) -> tuple[int, ...]:
    """A window that moves one step towards the data every so many iterations, then starts again (MixGRPO).

    Args:
        n: number of steps of the sampler.
        width: steps in the window.
        iteration: optimizer iteration, from 0.
        every: iterations between two moves.
    """
    places = n - width
    if places < 1:
        raise ValueError(f"a window of {width} does not fit into {n} steps beside the last one")
    return window(n, (iteration // every) % places, width)


def trained_count(n: int, fraction: float) -> int:
    """How many of the n - 1 possible stochastic steps a fraction keeps; at least one (DanceGRPO, arXiv 2505.07818)."""
    if n < 2:
        raise ValueError(f"a sampler of {n} step has no step that could be stochastic; use at least 2")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}, but it must lie in (0, 1]")
    return max(1, int((n - 1) * fraction))


def random_steps(n: int, fraction: float, seed: int) -> tuple[int, ...]:
    """A named random subset of the possible stochastic steps, in order."""
    return check_steps(n, rng.permutation(n - 1, seed=seed)[: trained_count(n, fraction)])


def strengths(n: int, steps: Iterable[int], eta: float, dtype: torch.dtype = torch.float32) -> Float[Tensor, " n"]:
    """The strength of each step as one vector: eta where stochastic, 0 where deterministic."""
    vector = torch.zeros(n, dtype=dtype)
    vector[list(check_steps(n, steps))] = eta
    return vector
