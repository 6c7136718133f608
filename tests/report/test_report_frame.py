"""Axes: marks inside, few, and none over another."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelign.report import curves, frame

WIDTH = 360


def field(first: float, last: float, left: float = 50.0) -> frame.Frame:
    return frame.Frame(left, WIDTH - 10.0, 10.0, 142.0, first, last, 0.0, 1.0)


def labels_below(svg: str) -> list[tuple[float, float]]:
    """Where each label of the horizontal axis begins and ends."""
    found = re.findall(r'<text class="tick mid" x="([\d.]+)" y="[\d.]+">([^<]*)<', svg)
    return [(float(x) - frame.DIGIT * len(t) / 2, float(x) + frame.DIGIT * len(t) / 2) for x, t in found]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_inside_and_few(low: float, width: float):
    found = frame.ticks(low, low + width)
    assert 0 <= len(found) <= 6
    edge = 1e-6 * (abs(low) + width)
    assert all(low - edge <= t <= low + width + edge for t in found)


@given(st.integers(0, 10**12), st.integers(1, 10**12), st.integers(50, 140))
def test_labels_of_steps_do_not_cover_each_other_and_stay_inside(first: int, steps: int, left: int):
    own = field(float(first), float(first + steps), float(left))
    marks = frame.along(own, lambda at: f"{at:,.0f}" if at == int(at) else "", WIDTH)
    spans = labels_below(frame.axes(own, [], marks, "step", WIDTH, 176))
    assert len(spans) == len(marks)
    assert all(end < start for (_, end), (start, _) in pairwise(spans))
    assert all(start >= -0.1 and end <= WIDTH + 0.1 for start, end in spans)


@pytest.mark.parametrize(("steps", "marks"), [(5, 6), (120, 3), (20_000, 5), (2_000_000, 3)])
def test_short_labels_leave_room_for_more_of_them(steps: int, marks: int):
    svg = curves.line_chart([(float(step), 0.5) for step in (0, steps)], name="q")
    assert len(labels_below(svg)) == marks


def test_what_lies_beyond_the_field_is_drawn_on_its_edge():
    own = field(0.0, 10.0)
    assert (own.x(0.0), own.x(10.0)) == (50.0, 350.0)
    assert (own.y(1.0), own.y(0.0), own.y(7.0), own.y(-7.0)) == (10.0, 142.0, 10.0, 142.0)
    assert field(3.0, 3.0).x(3.0) == 200.0
