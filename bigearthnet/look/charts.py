"""Charts as the numbers that a drawing needs: columns, histograms and lines; `charts.html.j2` turns them into SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Style = Literal["first", "second", "reference", "faint"]
"""How a line looks; the style sheet says which colour that is in light and in dark."""

_CHARACTER: Final = 6.8
"""Pixels that a digit takes at most, in the fonts that browsers have."""
_MAX_DOTS: Final = 40
"""More points than these are a line without dots."""


@dataclass(frozen=True)
class Box:
    """A drawing, and the part of it that the axes enclose: pixels from the upper left corner."""

    width: int = 360
    height: int = 230
    left: int = 46
    right: int = 350
    top: int = 10
    bottom: int = 200

    def holds(self, tick: Tick) -> bool:
        """Tell whether the name of a tick of the horizontal axis, centred on it, stays in the drawing."""
        half = len(tick.text) * _CHARACTER / 2
        return half <= tick.at <= self.width - half


_LINES: Final = Box()
_COLUMNS: Final = Box(height=194, left=44, right=354, top=14, bottom=156)
_RIDGE: Final = Box(width=240, height=110, left=0, right=240, top=8, bottom=84)


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
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Column:
    """One column, which says its value when pointed at."""

    x: float
    y: float
    width: float
    height: float
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
class Ridge:
    """A histogram as a filled outline."""

    path: str
    mean: float | None
    """Where the mean is drawn; None beyond the drawing."""
    spread: tuple[float, float] | None
    """Where one standard deviation below and above it is drawn."""


@dataclass(frozen=True)
class Chart:
    """Everything that is drawn, in pixels."""

    label: str
    """Says what the drawing shows to those who do not see it."""
    box: Box
    x_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...] = ()
    columns: tuple[Column, ...] = ()
    ridge: Ridge | None = None
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()


def draw_columns(
    label: str, names: Sequence[str], values: Sequence[int], x_name: str = "", *, on_edges: bool = False
) -> Chart:
    """Draw a column a value.

    Args:
        label: What the drawing shows.
        names: Names of the columns; with `on_edges` those of the edges between them, one more than columns.
        values: Counts, not negative.
        x_name: What the names are.
        on_edges: The names stand between columns, which then touch.
    """
    box = _COLUMNS
    ticks = _choose_ticks(0, max(*values, 1), 4, whole=True)
    y = _Scale(0, ticks[-1], box.bottom, box.top)
    step = (box.right - box.left) / max(len(values), 1)
    width = step - 1 if on_edges else min(step * 0.72, 46)
    columns = tuple(
        Column(
            round(box.left + step * (i + 0.5) - width / 2, 1),
            y(value),
            round(width, 1),
            round(box.bottom - y(value), 1),
            f"{names[i]}{f' to {names[i + 1]}' if on_edges else ''}: {value:,}",
        )
        for i, value in enumerate(values)
    )
    every = math.ceil(len(names) * max(map(len, names), default=1) * 7.5 / (box.right - box.left))
    start = names.index("0") % every if on_edges and "0" in names else 0
    places = [(i, box.left + step * (i + (0 if on_edges else 0.5))) for i in range(start, len(names), every)]
    return Chart(
        label,
        box,
        x_name,
        tuple(tick for tick in (Tick(round(at, 1), names[i]) for i, at in places) if box.holds(tick)),
        tuple(Tick(y(value), _format_short(int(value))) for value in ticks),
        columns=columns,
    )


def draw_ridge(
    label: str, counts: NDArray[np.int64], ends: tuple[float, float], mean: float | None, std: float | None
) -> Chart:
    """Draw a histogram of equal bins, with a mean and the standard deviation to each side of it.

    Args:
        label: What the drawing shows.
        counts: Shape (bin,).
        ends: Lower end of the first bin and upper end of the last.
        mean: None if it is not known.
        std: None if it is not known.
    """
    box = _RIDGE
    first, last = ends
    x, y = _Scale(first, last, box.left, box.right), _Scale(0, max(int(counts.max()), 1), box.bottom, box.top)
    edges = [x(float(edge)) for edge in np.linspace(first, last, len(counts) + 1)[1:]]
    steps = "".join(f"V{y(n)}H{edge}" for n, edge in zip(counts.tolist(), edges, strict=True))
    ticks = [Tick(x(at), f"{at:,.0f}".replace("-", "\N{MINUS SIGN}")) for at in _choose_ticks(first, last, 4)]
    drawn_mean = spread = None
    if mean is not None and std is not None and first <= mean <= last:
        drawn_mean, spread = x(mean), (x(max(mean - std, first)), x(min(mean + std, last)))
    return Chart(
        label,
        box,
        "",
        tuple(tick for tick in ticks if box.holds(tick)),
        ridge=Ridge(f"M{box.left} {box.bottom}{steps}V{box.bottom}z", drawn_mean, spread),
    )


def draw_lines(
    label: str,
    series: Sequence[Series],
    *,
    x_name: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float] | None = None,
    whole: bool = False,
    box: Box = _LINES,
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
    if y_range is None:
        values = np.concatenate([one.y[np.isfinite(one.y)] for one in series] or [np.zeros(1)])
        ticks = _choose_ticks(min(0.0, float(values.min(initial=0))), float(values.max(initial=0)) or 1.0)
        y_range = (ticks[0], ticks[-1])
    else:
        ticks = _choose_ticks(*y_range)
    x, y = _Scale(*x_range, box.left, box.right), _Scale(*y_range, box.bottom, box.top)
    shown = [value for value in _choose_ticks(*x_range, whole=whole) if x_range[0] <= value <= x_range[1]]
    return Chart(
        label,
        box,
        x_name,
        tuple(Tick(x(value), f"{value:g}") for value in shown),
        tuple(Tick(y(value), f"{value:g}") for value in ticks if y_range[0] <= value <= y_range[1]),
        lines=tuple(Line(one.name, one.style, _trace(one, x, y)) for one in series),
        dots=tuple(
            dot for one in series if one.has_dots and len(one.x) <= _MAX_DOTS for dot in _list_dots(one, x, y, x_name)
        ),
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


def _choose_ticks(low: float, high: float, n_steps: int = 5, *, whole: bool = False) -> list[float]:
    """Choose multiples of 1, 2 or 5 times a power of ten that enclose a range in at most so many steps, or one more."""
    rough = max((high - low) / n_steps, 1.0 if whole else 1e-12)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:g}") for number in range(first, last + 1)]


def _format_short(n: int) -> str:
    """Format a count for an axis: 250k for 250,000."""
    return f"{n // 1000}k" if n >= 10_000 and n % 1000 == 0 else f"{n:,}"


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
    return [
        Dot(x(float(across)), y(float(up)), series.style, f"{series.name}, {x_name} {across:g}: {up:.4g}")
        for across, up in zip(series.x, series.y, strict=True)
        if np.isfinite(up)
    ]
