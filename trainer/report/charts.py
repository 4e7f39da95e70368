"""Line charts as the numbers that a drawing needs; the template turns them into SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Style = Literal["first", "second", "reference", "faint"]
"""How a line looks; the style sheet says which colour that is in light and in dark."""

_MAX_DOTS: Final = 40
"""More points than these are a line without dots."""
_STEPS: Final = (1, 2, 2.5, 5, 10)
"""Between two ticks, times a power of ten."""


@dataclass(frozen=True, eq=False)
class Series:
    """Points in the units of the data."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    style: Style
    is_stair: bool = False
    """Each value holds from the point before to its own; else straight lines."""
    has_dots: bool = False


@dataclass(frozen=True)
class Box:
    """A drawing, and the part of it that the axes enclose: pixels from the upper left corner."""

    width: int = 360
    height: int = 230
    left: int = 46
    right: int = 350
    top: int = 10
    bottom: int = 200


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Dot:
    """A point that says its value when pointed at."""

    x: float
    y: float
    style: Style
    text: str


@dataclass(frozen=True)
class Line:
    """A line as SVG writes it."""

    name: str
    style: Style
    path: str


@dataclass(frozen=True)
class Chart:
    """Everything that is drawn, in pixels."""

    label: str
    """Says what the drawing shows to those who do not see it."""
    box: Box
    x_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    dots: tuple[Dot, ...]


def draw_chart(
    label: str,
    series: Sequence[Series],
    *,
    x_name: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float] | None = None,
    whole: bool = False,
    box: Box | None = None,
) -> Chart:
    """Lay out a line chart.

    Args:
        label: Says what the drawing shows to those who do not see it.
        series: The later are drawn over the earlier; values that are not finite are left out.
        x_name: What the horizontal axis shows.
        x_range: What the horizontal axis spans.
        y_range: What the vertical axis spans; if None, from 0 or below to above the highest value.
        whole: Whether the horizontal axis counts something.
        box: Where to draw.
    """
    box = box or Box()
    if y_range is None:
        values = np.concatenate([one.y[np.isfinite(one.y)] for one in series] or [np.zeros(1)])
        ticks = _choose_ticks(min(0.0, float(values.min(initial=0))), float(values.max(initial=0)) or 1.0)
        y_range = (ticks[0], ticks[-1])
    else:
        ticks = _choose_ticks(*y_range)
    x, y = _Scale(*x_range, box.left, box.right), _Scale(*y_range, box.bottom, box.top)
    shown = [value for value in _choose_ticks(*x_range, whole=whole) if x_range[0] <= value <= x_range[1]]
    return Chart(
        label=label,
        box=box,
        x_name=x_name,
        x_ticks=tuple(Tick(x(value), f"{value:g}") for value in shown),
        y_ticks=tuple(Tick(y(value), f"{value:g}") for value in ticks if y_range[0] <= value <= y_range[1]),
        lines=tuple(Line(one.name, one.style, _trace(one, x, y)) for one in series),
        dots=tuple(dot for one in series if one.has_dots for dot in _list_dots(one, x, y, x_name)),
    )


@dataclass(frozen=True)
class _Scale:
    """Turns values into pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 1)


def _choose_ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Choose round values, the outermost of which enclose the range."""
    if whole and low == high:
        return [low]
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 5, 10] if whole else list(_STEPS), integer=whole, min_n_ticks=1)
    return [float(f"{value:g}") for value in ticks.tick_values(low, high)]


def _trace(series: Series, x: _Scale, y: _Scale) -> str:
    """Write the line of a series; a stair leaves out the points within a tread."""
    points = [
        (x(float(across)), y(float(up)))
        for across, up in zip(series.x, series.y, strict=True)
        if np.isfinite(across) and np.isfinite(up)
    ]
    if not points:
        return ""
    if not series.is_stair:
        return "M" + " ".join(f"{across:g},{up:g}" for across, up in points)
    path, height, reached = [f"M{x(x.low):g},{points[0][1]:g}"], points[0][1], x(x.low)
    for across, up in points:
        if up != height:
            path.append(f"H{reached:g}V{up:g}")
        height, reached = up, across
    return "".join([*path, f"H{reached:g}"])


def _list_dots(series: Series, x: _Scale, y: _Scale, x_name: str) -> list[Dot]:
    if len(series.x) > _MAX_DOTS:
        return []
    return [
        Dot(x(float(across)), y(float(up)), series.style, f"{series.name}, {x_name} {across:g}: {up:.4g}")
        for across, up in zip(series.x, series.y, strict=True)
        if np.isfinite(up)
    ]
