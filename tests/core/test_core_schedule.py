"""Noise levels and the choice of stochastic steps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reelign.core import schedule


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 200), shift=st.floats(0.2, 15.0))
def test_a_table_falls_strictly_from_exactly_one_to_exactly_zero(n: int, shift: float) -> None:
    levels = schedule.sigmas(n, shift)
    assert levels.dtype == torch.float32
    assert levels.shape == (n + 1,)
    assert levels[0] == 1
    assert levels[-1] == 0
    assert bool((levels.diff() < 0).all())


def test_a_table_is_rounded_once_from_float64() -> None:
    exact = schedule.sigmas(50, 3.0, torch.float64)
    assert torch.equal(schedule.sigmas(50, 3.0), exact.float())


def test_shifting_by_one_changes_nothing_and_twice_is_not_once() -> None:
    even = schedule.sigmas(10)
    assert torch.equal(schedule.shifted(even, 1.0), even)
    assert not torch.allclose(schedule.shifted(schedule.shifted(even, 3.0), 3.0), schedule.shifted(even, 3.0))


@pytest.mark.parametrize(("n", "shift"), [(0, 1.0), (4, 0.0), (4, -1.0)])
def test_impossible_tables_are_refused(n: int, shift: float) -> None:
    with pytest.raises(ValueError, match=r"at least one step|must be positive"):
        schedule.sigmas(n, shift)


def test_a_window_covers_neighbouring_steps() -> None:
    assert schedule.window(8, 2, 3) == (2, 3, 4)


@pytest.mark.parametrize(("start", "width"), [(6, 2), (7, 1), (-1, 2), (3, 9), (0, 0)])
def test_a_window_never_holds_the_last_step_or_leaves_the_sampler(start: int, width: int) -> None:
    with pytest.raises(ValueError, match=r"step|window"):
        schedule.window(8, start, width)


def test_a_sliding_window_moves_towards_the_data_and_starts_again() -> None:
    starts = [schedule.sliding_window(8, 3, iteration, every=2)[0] for iteration in range(12)]
    assert starts == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 0]


def test_random_steps_are_as_many_as_the_fraction_says_and_never_the_last() -> None:
    for seed in range(20):
        steps = schedule.random_steps(16, 0.6, seed)
        assert len(steps) == schedule.trained_count(16, 0.6) == 9
        assert max(steps) <= 14
    with pytest.raises(ValueError, match="fraction"):
        schedule.trained_count(16, 0.0)
    with pytest.raises(ValueError, match="at least 2"):
        schedule.trained_count(1, 0.5)


def test_strengths_are_eta_where_stochastic_and_zero_elsewhere() -> None:
    assert schedule.strengths(5, (1, 3), 0.7).tolist() == pytest.approx([0, 0.7, 0, 0.7, 0])
    assert schedule.strengths(5, (), 0.7).tolist() == [0] * 5
    with pytest.raises(ValueError, match="cannot be stochastic"):
        schedule.strengths(5, (4,), 0.7)
