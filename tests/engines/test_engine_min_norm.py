"""Min-norm over advantages: known answers, optimality, and every support tried."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from reelign.core import advantage
from reelign.engines import min_norm


def _rows(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _by_enumeration(rows: torch.Tensor) -> float:
    """The smallest squared length over all supports, each solved exactly."""
    best = float("inf")
    for size in range(1, len(rows) + 1):
        for support in combinations(range(len(rows)), size):
            part = rows[list(support)]
            gram = part @ part.T
            system = torch.zeros(size + 1, size + 1, dtype=rows.dtype)
            system[:size, :size], system[:size, size], system[size, :size] = gram, 1, 1
            target = torch.zeros(size + 1, dtype=rows.dtype)
            target[size] = 1
            weights = torch.linalg.lstsq(system, target).solution[:size]
            if bool((weights >= -1e-9).all()):
                best = min(best, float((weights.clamp_min(0) @ part).square().sum()))
    return best


def test_two_rows_in_closed_form() -> None:
    found = min_norm.balance(_rows([1, -1, 0, 0], [0.1, 0.2, -0.3, 0]))
    assert_close(found.weights[0].item(), 0.10256410, atol=1e-8, rtol=0)
    assert_close(found.combined.tolist(), [0.19230769, 0.07692308, -0.26923077, 0.0], atol=1e-8, rtol=0)
    assert min_norm.balance(_rows([2, -2], [1, -1])).weights.tolist() == [0, 1]
    opposed = min_norm.balance(_rows([1, -1], [-1, 1]))
    assert opposed.weights.tolist() == [0.5, 0.5]
    assert opposed.combined.tolist() == [0, 0]
    assert float(opposed.conflict) == 1


def test_three_rows_with_a_known_gram_matrix() -> None:
    raw = torch.tensor([[1.0, 2, 3, 4], [2, 1, 4, 3], [4, 3, 1, 2]], dtype=torch.float64)
    rows = advantage.group(raw, eps=0.0)
    found = min_norm.balance(rows)
    assert_close(found.weights.tolist(), [9 / 34, 9 / 34, 16 / 34], atol=1e-9, rtol=0)
    assert_close(found.value.item(), 0.14117647, atol=1e-8, rtol=0)
    assert_close(found.combined.tolist(), [0.13669353, -0.22782255, -0.13669353, 0.22782255], atol=1e-8, rtol=0)
    assert_close(found.conflict.item(), 2 / 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(2, 12), st.integers(0, 10_000))
def test_it_is_optimal_and_as_short_as_the_best_support(k: int, n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(k, n, generator=generator, dtype=torch.float64)
    rows = rows * torch.logspace(-2, 2, k, dtype=torch.float64)[:, None]
    found = min_norm.balance(rows)
    assert_close(found.weights.sum().item(), 1.0)
    assert bool((found.weights >= 0).all())
    size = rows.square().sum(dim=1).max()
    # No reward loses: every product with the combination is at least its squared length.
    assert bool((rows @ found.combined >= found.value - 1e-7 * size).all())
    assert abs(found.value.item() - _by_enumeration(rows)) <= 1e-7 * float(size)


def test_a_preferred_reward_gets_more() -> None:
    rows = _rows([1, -1, 0, 0], [0, 0, 1, -1])
    assert min_norm.balance(rows).weights.tolist() == [0.5, 0.5]
    assert float(min_norm.balance(rows, preference=(2.0, 1.0)).weights[0]) > 0.5


def test_bad_preferences_are_refused() -> None:
    with pytest.raises(ValueError, match="one positive number for each of 2 rewards"):
        min_norm.balance(_rows([1, -1], [0, 1]), preference=(1.0,))
    with pytest.raises(ValueError, match="no advantage"):
        min_norm.balance(torch.zeros(0, 3))


def test_rows_of_zeros_are_shared_evenly() -> None:
    assert min_norm.balance(torch.zeros(4, 5)).weights.tolist() == [0.25] * 4
    assert min_norm.balance(torch.zeros(2, 5)).weights.tolist() == [0.5] * 2
