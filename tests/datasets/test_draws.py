"""Which items a draw takes."""

from hypothesis import given
from hypothesis import strategies as st

from reelign.datasets._draw import order

sizes = st.integers(1, 40)


@given(sizes, st.integers(1, 50), st.integers(-(2**62), 2**62), st.integers(0, 9))
def test_a_draw_is_a_function_of_its_number_and_holds_no_item_twice(size, n, draw, seed):
    first = order(size, n, draw, seed)
    assert first == order(size, n, draw, seed)
    assert sorted(first) == list(range(size))


@given(sizes, st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_shows_every_item_once_before_it_fills_its_last_draw(size, n, epoch):
    n = min(n, size)
    draws = -(-size // n)
    shown = [i for k in range(draws) for i in order(size, n, epoch * draws + k, 0)[:n]]
    assert sorted(shown[:size]) == list(range(size))
    assert len(shown) < size + n


def test_epochs_and_seeds_have_their_own_orders():
    assert order(100, 10, 0, seed=0) != order(100, 10, 10, seed=0)
    assert order(100, 10, 0, seed=0) != order(100, 10, 0, seed=1)
