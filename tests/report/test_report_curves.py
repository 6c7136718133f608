"""Training curves: the right fit, bounded in time and size."""

import json
import re
import time
from pathlib import Path

import pytest
import synthetic_run
from hypothesis import given
from hypothesis import strategies as st

from reelign.report import curves, frame, load, page, quantities


def fitted_one_by_one(values: list[float]) -> list[float]:
    """The definition: a least-squares line through each value's neighbours, held within the values' range."""
    half = max(len(values) // curves.WINDOW // 2, 2)
    size = min(2 * half + 1, len(values))
    found = []
    for index in range(len(values)):
        start = min(max(index - half, 0), len(values) - size)
        window = values[start : start + size]
        centre, mean = (size - 1) / 2, sum(window) / size
        spread = sum((k - centre) ** 2 for k in range(size))
        slope = sum((k - centre) * v for k, v in enumerate(window)) / spread if spread else 0.0
        found.append(min(max(mean + slope * (index - start - centre), min(values)), max(values)))
    return found


def points(values: list[float]) -> list[tuple[float, float]]:
    return [(float(step), value) for step, value in enumerate(values)]


def numbers_of(svg: str, kind: str) -> list[tuple[float, float]]:
    drawn = re.search(rf'<path class="{kind}[^"]*" d="M([^"]*)"', svg)
    assert drawn is not None
    return [(float(x), float(y)) for x, y in (pair.split() for pair in drawn[1].split("L"))]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=120))
def test_the_fit_is_a_line_through_neighbours(values: list[float]):
    scale = max(abs(value) for value in values) or 1.0
    assert curves.smoothed(values) == pytest.approx(fitted_one_by_one(values), abs=1e-9 * scale)


def test_smoothing_keeps_straight_lines_and_constants():
    line = [0.5 * k - 3 for k in range(40)]
    assert curves.smoothed(line) == pytest.approx(line)
    assert curves.smoothed([2.0]) == [2.0]
    assert curves.smoothed([0.1] * 50) == [0.1] * 50


def test_what_cannot_be_negative_is_not_fitted_below_zero():
    # The line through the last five values, 0.9 and four times 0, ends at 0.18 - 2 * 0.18 = -0.18.
    divergence = [0.5, 0.6, 0.9, 0.9, 0.9, 0.0, 0.0, 0.0, 0.0]
    assert curves.smoothed(divergence)[-1] == 0.0
    assert min(curves.smoothed(divergence)) == 0.0
    lowest = max(y for _, y in numbers_of(curves.line_chart(points(divergence), name="kl"), "smooth"))
    assert lowest == curves.HEIGHT - curves.BOTTOM


def test_one_spike_does_not_spoil_the_fit_of_the_rest():
    values = [1e12] + [1.0 + 0.001 * (k % 2) for k in range(5000)]
    assert curves.smoothed(values)[-1] == pytest.approx(1.0005, abs=1e12 * 1e-10)


def test_a_long_curve_keeps_its_peaks_in_few_points():
    values = [float(k % 7) for k in range(20_000)]
    values[12_345], values[678] = 1e3, -1e3
    kept = curves.thinned(points(values))
    assert len(kept) <= curves.MOST_POINTS
    assert {(12_345.0, 1e3), (678.0, -1e3)} <= set(kept)
    assert kept == sorted(kept)
    assert set(kept) <= set(points(values))
    assert curves.thinned(points(values[:2000])) == points(values[:2000])


def test_a_chart_is_as_large_for_ten_times_the_steps():
    wave = [float(k * 37 % 101) for k in range(40_000)]
    short, long = (curves.line_chart(points(wave[:n]), name="q") for n in (4_000, 40_000))
    assert len(long) < 1.05 * len(short) < 80_000
    assert len(numbers_of(long, "raw")) <= curves.MOST_POINTS
    assert len(numbers_of(long, "smooth")) <= curves.MOST_FITTED
    assert numbers_of(long, "smooth")[0][0] == numbers_of(long, "raw")[0][0] == curves.LEFT
    assert numbers_of(long, "smooth")[-1][0] == curves.WIDTH - curves.RIGHT


def test_the_time_for_curves_grows_with_the_steps_and_no_faster(tmp_path: Path):
    def seconds(steps: int) -> float:
        folder = tmp_path / str(steps)
        synthetic_run.write_config(folder, ())
        row = {f"online/q{q}": 0.5 for q in range(4)}
        rows = (json.dumps({"stage": "grpo", "step": k, **row, "online/q0": k % 13}) for k in range(steps))
        (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
        began = time.process_time()
        page.write(folder)
        return time.process_time() - began

    seconds(100)
    assert seconds(20_000) < 6.0  # under 1 s; with a window's values summed for each step it is minutes


def test_curves_leave_out_what_is_not_finite_and_say_so(finished: Path):
    drawn = {chart.quantity: chart for chart in quantities.charts(load.load(finished), "grpo")[0]}
    assert next(iter(drawn)).startswith("online/reward")
    assert drawn["online/grad_norm"].skipped == 1
    assert drawn["online/ratio_mean"].aside
    assert "nan" not in drawn["online/grad_norm"].svg
    assert drawn["rollout/wall_s"].unit == "s"
    assert "<title>step 0: " in drawn["online/reward"].svg


def test_a_curve_of_one_constant_value_can_be_drawn():
    svg = curves.line_chart([(7.0, 0.0)], name="<b>")
    assert "<b>" not in svg
    assert "nan" not in svg
    assert svg.count("<circle") == 2


@pytest.mark.parametrize("values", [[1e300, -1e300], [5e-324, 0.0], [1e-300, 2e-300], [1234567.0, 1234568.0], [-3.0]])
def test_numbers_of_any_size_can_be_drawn(values: list[float]):
    svg = curves.line_chart(points(values), name="q")
    assert "nan" not in svg
    assert "inf" not in svg


def test_labels_of_the_vertical_axis_lie_within_the_picture():
    for values in ([1234567.0, 1234568.0], [-1.25e-7, 3e-7], [0.0, 1.0], [123456789.0, 123456790.0]):
        svg = curves.line_chart(points(values), name="a long name of a quantity that takes a lot of room")
        ends = re.findall(r'<text class="tick end" x="([\d.]+)" y="[\d.]+">([^<]*)<', svg)
        assert ends
        assert all(float(x) >= frame.DIGIT * len(text) for x, text in ends)
        assert "rotate" not in svg


def test_more_quantities_than_a_page_holds_are_counted(tmp_path: Path):
    synthetic_run.write_config(tmp_path, ())
    row = {f"online/q{q}": 1.0 for q in range(quantities.MOST_CHARTS + 1)}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"stage": "grpo", "step": 0, **row}) + "\n")
    drawn, more = quantities.charts(load.load(tmp_path), "grpo")
    assert (len(drawn), more) == (quantities.MOST_CHARTS, 1)
    assert "1 further quantity is in" in page.write(tmp_path).read_text()


@pytest.mark.parametrize("steps", [1, 2, 500])
def test_what_can_be_pointed_at_lies_within_the_axes(steps: int):
    svg = curves.line_chart(points([0.5] * steps), name="q")
    bands = [
        (float(x), float(w)) for x, w in re.findall(r'<g class="at"><rect x="([\d.]+)" y="10.0" width="([\d.]+)"', svg)
    ]
    assert len(bands) == min(steps, curves.MOST_BANDS)
    assert all(x >= curves.LEFT and x + w <= curves.WIDTH - curves.RIGHT + 0.2 for x, w in bands)
