"""Columns and histograms as the numbers that a drawing needs; the template turns them into SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from converter.report.pixels import BandHistogram

WIDTH: Final = 360
"""Width of a drawing in its own units, which are CSS pixels on a phone."""


@dataclass(frozen=True)
class Column:
    """One column of a chart."""

    x: float
    y: float
    height: float
    text: str
    """Says its value when it is pointed at."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class ColumnChart:
    """Columns side by side, in units of the drawing from the upper left corner."""

    label: str
    """Says what the drawing shows to those who do not see it."""
    height: int
    baseline: int
    column_width: float
    columns: tuple[Column, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_title: str


@dataclass(frozen=True)
class Ridge:
    """The histogram of one band, as a filled outline."""

    band: str
    label: str
    width: int
    height: int
    baseline: int
    outline: str
    x_ticks: tuple[Tick, ...]
    mean: float | None
    """Where the stored mean is drawn; None beyond the drawing."""
    spread: tuple[float, float] | None
    """Where one standard deviation below and above it is drawn."""


def draw_columns(
    label: str, names: Sequence[str], values: Sequence[int], x_title: str = "", *, on_edges: bool = False
) -> ColumnChart:
    """Draw a column a value.

    Args:
        label: What the drawing shows.
        names: Names of the columns; with `on_edges` those of the edges between them, one more than columns.
        values: Patches, not negative.
        x_title: What the names are.
        on_edges: The names stand between columns, which then touch.
    """
    left, right, top, baseline = 44, WIDTH - 6, 14, 156
    y_ticks = _choose_ticks(max(values, default=0))
    scale = (baseline - top) / y_ticks[-1]
    step = (right - left) / max(len(values), 1)
    width = step - 1 if on_edges else min(step * 0.72, 46)
    columns = tuple(
        Column(
            round(left + step * (i + 0.5) - width / 2, 1),
            round(baseline - value * scale, 1),
            round(value * scale, 1),
            f"{names[i]}{f' to {names[i + 1]}' if on_edges else ''}: {value:,}",
        )
        for i, value in enumerate(values)
    )
    every = math.ceil(len(names) * max(map(len, names), default=1) * 7.5 / (right - left))
    start = names.index("0") % every if on_edges and "0" in names else 0
    return ColumnChart(
        label,
        200 if x_title else 180,
        baseline,
        round(width, 1),
        columns,
        tuple(
            Tick(round(left + step * (i + (0 if on_edges else 0.5)), 1), name)
            for i, name in enumerate(names)
            if i % every == start
        ),
        tuple(Tick(round(baseline - at * scale, 1), format_short(at)) for at in y_ticks),
        x_title,
    )


def draw_ridge(histogram: BandHistogram) -> Ridge:
    """Draw the histogram of a band, with the stored mean and standard deviation."""
    width, height, baseline = 240, 110, 84
    span = histogram.last - histogram.first
    across = width / len(histogram.counts)
    up = (baseline - 8) / max(int(histogram.counts.max()), 1)
    steps = "".join(f"V{baseline - n * up:.1f}H{(i + 1) * across:.1f}" for i, n in enumerate(histogram.counts.tolist()))

    def place(value: float) -> float:
        return round((value - histogram.first) / span * width, 1)

    mean, std = histogram.mean, histogram.std
    known = mean is not None and std is not None and histogram.first <= mean <= histogram.last
    text = "" if mean is None or std is None else f", mean {mean:,.1f}, standard deviation {std:,.1f}"
    unit = "dB" if histogram.sensor == "s1" else "reflectance x 10,000"
    return Ridge(
        histogram.band,
        f"Histogram of {histogram.band} from {histogram.first:,.0f} to {histogram.last:,.0f} {unit}{text}",
        width,
        height,
        baseline,
        f"M0 {baseline}{steps}V{baseline}z",
        tuple(
            Tick(place(at), f"{at:,.0f}".replace("-", "\N{MINUS SIGN}"))
            for at in _choose_inner_ticks(histogram.first, histogram.last)
        ),
        place(mean) if known and mean is not None else None,
        (max(place(mean - std), 0), min(place(mean + std), width))
        if known and mean is not None and std is not None
        else None,
    )


def _choose_step(span: float, n: int) -> float:
    """Choose a round step, 1, 2 or 5 times a power of ten, that goes into a span no more than n times."""
    rough = max(span, 1e-9) / n
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _choose_ticks(most: int) -> list[int]:
    """Choose ticks from 0 to no less than the largest count."""
    step = max(int(_choose_step(max(most, 1), 4)), 1)
    return [step * i for i in range(math.ceil(max(most, 1) / step) + 1)]


def _choose_inner_ticks(first: float, last: float) -> list[float]:
    step = _choose_step(last - first, 4)
    found = [step * i for i in range(math.ceil(first / step), math.floor(last / step) + 1)]
    margin = (last - first) * 0.04
    return [at for at in found if first + margin <= at <= last - margin]


def format_short(n: int) -> str:
    """Format a count for an axis: 250k for 250,000."""
    return f"{n // 1000}k" if n >= 10_000 and n % 1000 == 0 else f"{n:,}"
