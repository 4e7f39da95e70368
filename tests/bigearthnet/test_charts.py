"""Layout of charts: what is drawn is where the axes say it is."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigearthnet.look.charts import Box, Chart, Series, draw_columns, draw_lines, draw_ridge

BOX = Box()


def _value_at(chart: Chart, up: float) -> float:
    """Read a height against the two outermost ticks, as an eye does."""
    low, high = chart.y_ticks[0], chart.y_ticks[-1]
    return float(low.text) + (up - low.at) / (high.at - low.at) * (float(high.text) - float(low.text))


@given(st.lists(st.just(0.0) | st.floats(1e-9, 1e6), min_size=1, max_size=30))
def test_points_lie_where_the_axes_say(values: list[float]) -> None:
    y = np.array(values)
    x = np.arange(1.0, len(y) + 1)
    chart = draw_lines("", [Series("a", x, y, "first")], x_name="epoch", x_range=(1, float(len(y))), whole=True)
    points = [tuple(map(float, point.split(","))) for point in chart.lines[0].path[1:].split()]
    assert len(points) == len(y)
    span = float(chart.y_ticks[-1].text) - float(chart.y_ticks[0].text)
    for (across, up), value in zip(points, y, strict=True):
        assert BOX.left <= across <= BOX.right
        assert BOX.top <= up <= BOX.bottom
        assert _value_at(chart, up) == pytest.approx(value, abs=span / 500)
    assert all(re.fullmatch(r"\d+", tick.text) for tick in chart.x_ticks)
    assert 1 <= len(chart.x_ticks) <= 8


def test_the_area_under_a_stair_is_the_mean_of_its_values() -> None:
    y = np.random.default_rng(0).random(50)
    x = np.linspace(0, 1, 51)[1:]
    series = Series("a", x, y, "first", is_stair=True)
    chart = draw_lines("", [series], x_name="recall", x_range=(0, 1), y_range=(0, 1))
    across, up, area = float(BOX.left), 0.0, 0.0
    for command, numbers in re.findall(r"([MHV])([\d.,]+)", chart.lines[0].path):
        value = [float(number) for number in numbers.split(",")]
        if command == "M":
            assert value[0] == BOX.left
            up = value[1]
        elif command == "V":
            up = value[0]
        else:
            area += (value[0] - across) * (BOX.bottom - up)
            across = value[0]
    assert across == BOX.right
    assert area / ((BOX.right - BOX.left) * (BOX.bottom - BOX.top)) == pytest.approx(y.mean(), abs=0.003)


def test_what_is_not_a_number_is_left_out() -> None:
    values = np.array([np.nan, 0.5, np.nan])
    chart = draw_lines("", [Series("a", np.arange(3.0), values, "first", has_dots=True)], x_name="x", x_range=(0, 2))
    assert chart.lines[0].path.count(",") == 1
    assert [dot.text for dot in chart.dots] == ["a, x 1: 0.5"]
    nothing = draw_lines("", [Series("a", np.arange(3.0), values * np.nan, "first")], x_name="x", x_range=(0, 2))
    assert nothing.lines[0].path == ""


def test_one_epoch_is_a_dot_in_the_middle() -> None:
    one = Series("loss", np.array([1.0]), np.array([0.3]), "first", has_dots=True)
    chart = draw_lines("", [one], x_name="epoch", x_range=(1, 1), whole=True)
    assert chart.dots[0].x == (BOX.left + BOX.right) / 2
    assert [(tick.at, tick.text) for tick in chart.x_ticks] == [(chart.dots[0].x, "1")]


@pytest.mark.parametrize("values", [[0], [1, 0, 3], [17, 400, 399], [590_326, 1]])
def test_columns_are_as_high_as_their_values(values: list[int]) -> None:
    chart = draw_columns("x", [str(i) for i in range(len(values))], values)
    heights = [column.height for column in chart.columns]
    tops = [column.y + column.height for column in chart.columns]
    assert tops == pytest.approx([chart.box.bottom] * len(values), abs=0.11)
    if max(values):
        assert heights == pytest.approx([max(heights) * value / max(values) for value in values], abs=0.11)
    assert min(column.y for column in chart.columns) >= min(tick.at for tick in chart.y_ticks) - 0.1


def test_a_mean_beyond_the_histogram_is_not_drawn() -> None:
    inside = draw_ridge("", np.ones(60, np.int64), (0, 60), 30.0, 10.0).ridge
    assert inside
    assert (inside.mean, inside.spread) == (120, (80, 160))
    beyond = draw_ridge("", np.ones(60, np.int64), (0, 60), 100.0, 10.0).ridge
    assert beyond
    assert (beyond.mean, beyond.spread) == (None, None)
