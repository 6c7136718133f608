"""Min-norm over advantages: known answers, optimality, and every support tried."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from reelign import joint
from reelign.core import advantage


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
    found = joint.min_norm(_rows([1, -1, 0, 0], [0.1, 0.2, -0.3, 0]))
    assert_close(found.weights[0].item(), 0.10256410, atol=1e-8, rtol=0)
    assert_close(found.combined.tolist(), [0.19230769, 0.07692308, -0.26923077, 0.0], atol=1e-8, rtol=0)
    assert joint.min_norm(_rows([2, -2], [1, -1])).weights.tolist() == [0, 1]
    opposed = joint.min_norm(_rows([1, -1], [-1, 1]))
    assert opposed.weights.tolist() == [0.5, 0.5]
    assert opposed.combined.tolist() == [0, 0]
    assert float(opposed.conflict) == 1


def test_three_rows_with_a_known_gram_matrix() -> None:
    raw = torch.tensor([[1.0, 2, 3, 4], [2, 1, 4, 3], [4, 3, 1, 2]], dtype=torch.float64)
    rows = advantage.group(raw, eps=0.0)
    found = joint.min_norm(rows)
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
    found = joint.min_norm(rows)
    assert_close(found.weights.sum().item(), 1.0)
    assert bool((found.weights >= 0).all())
    size = rows.square().sum(dim=1).max()
    # No reward loses: every product with the combination is at least its squared length.
    assert bool((rows @ found.combined >= found.value - 1e-7 * size).all())
    assert abs(found.value.item() - _by_enumeration(rows)) <= 1e-7 * float(size)


def test_a_preferred_reward_gets_more() -> None:
    rows = _rows([1, -1, 0, 0], [0, 0, 1, -1])
    assert joint.min_norm(rows).weights.tolist() == [0.5, 0.5]
    assert float(joint.min_norm(rows, preference=(2.0, 1.0)).weights[0]) > 0.5


def test_bad_preferences_are_refused() -> None:
    with pytest.raises(ValueError, match="one positive number for each of 2 rewards"):
        joint.min_norm(_rows([1, -1], [0, 1]), preference=(1.0,))
    with pytest.raises(ValueError, match="no advantage"):
        joint.min_norm(torch.zeros(0, 3))


def test_rows_of_zeros_are_shared_evenly() -> None:
    assert joint.min_norm(torch.zeros(4, 5)).weights.tolist() == [0.25] * 4
    assert joint.min_norm(torch.zeros(2, 5)).weights.tolist() == [0.5] * 2


@pytest.mark.parametrize(
    ("column", "expected"), [([-2, 1, 3], 0), ([1, 2, 3], 1), ([-3, -1, -2], -1), ([2, 5], 2), ([-0.5, 0.2, 0.1], 0)]
)
def test_the_released_rule_for_single_samples(column: list[float], expected: float) -> None:
    assert joint.per_sample(torch.tensor(column, dtype=torch.float32)[:, None]).item() == expected


@pytest.mark.parametrize(("heads", "share"), [(2, 0.504), (3, 0.750), (4, 0.875)])
def test_the_released_rule_is_zero_for_most_samples(heads: int, share: float) -> None:
    rows = torch.randn(heads, 200_000, generator=torch.Generator().manual_seed(0))
    assert_close((joint.per_sample(rows) == 0).float().mean().item(), share, atol=0.005, rtol=0)
