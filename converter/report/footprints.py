"""Where the patches lie: an equal-area map of Europe, drawn from counts of their centres."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.store.query import open_table

Points = NDArray[np.float64]
"""Shape (point, 2): east and north, or right and down."""

LON, LAT = 10.0, 52.0
"""Where the projection is centred, in degrees: as EPSG:3035, the grid of the European Environment Agency."""

_RADIUS_KM: Final = 6_371.0
"""Radius of the sphere that stands in for the Earth, which moves nothing on a map of Europe by more than a pixel."""

WIDTH: Final = 720
"""Width of the map in units of the drawing."""

_FONT: Final = 21
"""Height of a country's name; on a phone the map is half as large."""

_CELLS_KM: Final = (2, 5, 10, 15, 20, 25, 30, 40, 50, 100)
"""Widths that a hexagon may have."""

_CENTRES: Final = """
    SELECT (bbox.xmin + bbox.xmax) / 2 AS lon, (bbox.ymin + bbox.ymax) / 2 AS lat FROM patches
    WHERE country IS NOT DISTINCT FROM $1
"""

_N_STEPS: Final = 5
"""Shades of the map at most; the style has as many."""


@dataclass(frozen=True)
class Footprints:
    """Patches counted in hexagons of equal area, in kilometres east and north of the projection's centre."""

    cell_km: int
    """Width of a hexagon."""
    centres: Points
    """Shape (cell, 2)."""
    counts: NDArray[np.int64]
    """Patches, shape (cell,)."""
    countries: dict[str, tuple[float, float, float, float]]
    """West, south, east and north end of each country's patches, most patches first."""


def project(lon: Points | float, lat: Points | float) -> Points:
    """Project degrees to kilometres east and north, shape (point, 2).

    Source: Snyder, "Map Projections: A Working Manual", USGS 1395, 1987, equations 24-2, 24-13 and 24-14.
    """
    x, y, y0 = np.radians(np.asarray(lon) - LON), np.radians(lat), math.radians(LAT)
    k = _RADIUS_KM * np.sqrt(2 / (1 + math.sin(y0) * np.sin(y) + math.cos(y0) * np.cos(y) * np.cos(x)))
    north = math.cos(y0) * np.sin(y) - math.sin(y0) * np.cos(y) * np.cos(x)
    return np.stack([k * np.cos(y) * np.sin(x), k * north], axis=-1)


def count_footprints(store: Path) -> Footprints:
    """Count the patches of a finished store in hexagons.

    Raises:
        StoreError: There is no finished store.
    """
    with open_table(store) as connection:
        countries = connection.execute("SELECT country FROM patches GROUP BY ALL ORDER BY count(*) DESC, country")
        points_of = {}
        for (country,) in countries.fetchall():
            centres = connection.execute(_CENTRES, [country]).fetchnumpy()
            points_of[country] = project(np.asarray(centres["lon"]), np.asarray(centres["lat"]))
    points = np.concatenate(list(points_of.values()))
    span = np.ptp(points, axis=0).max()
    width = next((width for width in _CELLS_KM if width * 130 >= span), _CELLS_KM[-1])
    cells, counts = _count_cells(points, width)
    ends_of = {
        country: (*inside.min(axis=0).tolist(), *inside.max(axis=0).tolist())
        for country, inside in points_of.items()
        if country is not None
    }
    return Footprints(width, cells, counts, ends_of)


def _count_cells(points: Points, width: int) -> tuple[Points, NDArray[np.int64]]:
    """Count points in hexagons: two rectangular lattices of centres, of which a point takes the nearer one.

    Source: Carr et al., "Scatterplot Matrix Techniques for Large N", JASA 82, 1987.
    """
    size = np.array((width, width * math.sqrt(3)))
    halves = np.stack([np.rint(points / size) * 2, np.floor(points / size) * 2 + 1])
    apart = ((points - halves / 2 * size) ** 2).sum(axis=-1)
    nearer = np.where((apart[0] <= apart[1])[:, None], *halves)
    cells, counts = np.unique(nearer @ (1, 1j), return_counts=True)  # pairs would be sorted much more slowly
    return np.stack([cells.real, cells.imag], axis=-1) / 2 * size, counts


@dataclass(frozen=True)
class Step:
    """One shade of the map."""

    least: int
    most: int
    path: str
    """All hexagons of the shade."""


@dataclass(frozen=True)
class Text:
    """A word on the map."""

    x: float
    y: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Map:
    """Everything that is drawn, in units of the drawing."""

    width: int
    height: int
    cell_km: int
    land: str
    graticule: str
    degrees: tuple[Text, ...]
    steps: tuple[Step, ...]
    """From few patches to many."""
    names: tuple[Text, ...]


class _Window:
    """The part of the projection that is drawn: the patches and some land around them."""

    def __init__(self, footprints: Footprints) -> None:
        low, high = footprints.centres.min(axis=0), footprints.centres.max(axis=0)
        half = np.maximum((high - low) / 2 * 1.1 + 60, 350)
        half[0] = max(half[0], half[1] * 0.62)
        half[1] = max(half[1], half[0] * 0.75)
        self._left, self._top = (low[0] + high[0]) / 2 - half[0], (low[1] + high[1]) / 2 + half[1]
        self.scale = float(WIDTH / (2 * half[0]))
        self.height = round(2 * half[1] * self.scale)

    def place(self, points: Points) -> Points:
        """Turn kilometres east and north into units right and down, shape (point, 2)."""
        placed: Points = (points - (self._left, self._top)) * (self.scale, -self.scale)
        return placed

    def shows(self, points: Points) -> bool:
        """Tell whether a box around the points touches the window."""
        low, high = points.min(axis=0), points.max(axis=0)
        return bool((high > 0).all() and low[0] < WIDTH and low[1] < self.height)


def draw_map(footprints: Footprints) -> Map:
    """Draw the land, a graticule, the hexagons in shades by the logarithm of their count, and the countries' names."""
    window = _Window(footprints)
    graticule, degrees = _draw_graticule(window)
    return Map(
        WIDTH,
        window.height,
        footprints.cell_km,
        _draw_land(window),
        graticule,
        degrees,
        _draw_cells(footprints, window),
        _place_names(footprints, window, degrees),
    )


def _draw_land(window: _Window) -> str:
    """Draw the outlines of Europe's countries."""
    content = json.loads((files(__package__) / "europe.geojson").read_text("utf-8"))
    rings = (window.place(project(*np.array(polygon[0]).T)) for polygon in content["coordinates"])
    return "".join(_write_path(ring, closed=True) for ring in rings if window.shows(ring))


def _write_path(points: Points, *, closed: bool = False) -> str:
    """Write a line as SVG does, in whole units relative to the point before, which halves its bytes."""
    whole = np.rint(points).astype(int)
    steps = np.diff(whole, axis=0)
    steps = steps[steps.any(axis=1)]
    moves = " ".join(f"{x} {y}" for x, y in steps.tolist())
    return f"M{whole[0, 0]} {whole[0, 1]}l{moves}{'z' if closed else ''}" if moves else ""


def _draw_graticule(window: _Window) -> tuple[str, tuple[Text, ...]]:
    degrees = 10 if window.scale < 0.5 else 5 if window.scale < 1 else 1
    along = np.linspace(0, 1, 60)
    path, texts = [], []
    for lon in range(-60, 81, degrees):
        line = window.place(project(np.full(60, float(lon)), 30 + 45 * along))
        path.append(_write_path(line) if window.shows(line) else "")
        x = float(np.interp(-(window.height - 8), -line[:, 1], line[:, 0]))
        if 40 < x < WIDTH - 40 and line[:, 1].max() > window.height:
            texts.append(Text(x, window.height - 8, f"{abs(lon)}°{'W' if lon < 0 else 'E' if lon else ''}", "middle"))
    for lat in range(30, 81, degrees):
        line = window.place(project(-60 + 140 * along, np.full(60, float(lat))))
        path.append(_write_path(line) if window.shows(line) else "")
        y = float(np.interp(8, line[:, 0], line[:, 1]))
        if 30 < y < window.height - 40:
            texts.append(Text(8, y - 5, f"{lat}°N", "start"))
    return "".join(path), tuple(texts)


def _draw_cells(footprints: Footprints, window: _Window) -> tuple[Step, ...]:
    """Draw the hexagons, point up, a path a shade."""
    most = int(footprints.counts.max())
    limits = sorted({round((most + 1) ** (i / _N_STEPS)) for i in range(_N_STEPS)} | {1})
    shade = np.searchsorted(limits, footprints.counts, side="right") - 1
    centres = window.place(footprints.centres)
    across = footprints.cell_km * window.scale
    half, side = across / 2, across / math.sqrt(3)
    outline = (
        f"l{half:.1f} {side / 2:.1f}v{side:.1f}l{-half:.1f} {side / 2:.1f} {-half:.1f} {-side / 2:.1f}v{-side:.1f}z"
    )
    return tuple(
        Step(least, end - 1, "".join(f"M{x:.1f} {y - side:.1f}{outline}" for x, y in centres[shade == i].tolist()))
        for i, (least, end) in enumerate(zip(limits, [*limits[1:], most + 1], strict=True))
    )


def _place_names(footprints: Footprints, window: _Window, degrees: Sequence[Text]) -> tuple[Text, ...]:
    """Write each country's name beside its patches, where it covers the fewest of them and no other name."""
    cells = window.place(footprints.centres)
    taken: list[Sequence[float]] = [(text.x, text.y - _FONT, text.x + 50, text.y) for text in degrees]
    names = []
    # Small countries have the fewest places to choose from.
    for name, (west, south, east, north) in reversed(footprints.countries.items()):
        (left, bottom), (right, top) = window.place(np.array([(west, south), (east, north)])).tolist()
        width = 0.6 * _FONT * len(name)
        centre, middle = (left + right - width) / 2, (top + bottom + _FONT) / 2
        ends = ((centre, top - 12), (centre, bottom + 12 + _FONT), (right + 12, middle), (left - 12 - width, middle))
        boxes = [(x, y - _FONT, x + width, y) for x, y in ends]
        box = min(boxes, key=lambda box: _count_covered(box, cells, taken, window))
        taken.append(box)
        names.append(Text(box[0] + width / 2, box[3] - 4, name, "middle"))
    return tuple(names)


def _count_covered(box: Sequence[float], cells: Points, taken: Iterable[Sequence[float]], window: _Window) -> int:
    """Count what a box would hide; another name, or an end beyond the window, counts like a thousand hexagons."""
    left, top, right, bottom = box
    inside = (cells > (left - 4, top - 4)) & (cells < (right + 4, bottom + 4))
    hidden = sum(left < other[2] and other[0] < right and top < other[3] and other[1] < bottom for other in taken)
    outside = left < 4 or right > WIDTH - 4 or top < 4 or bottom > window.height - 30
    return int(inside.all(axis=1).sum()) + 1_000 * (hidden + outside)
