"""Where a patch lies on the ground, from the MGRS tile it was cut out of and its place in that tile.

Sources: the 100,000 m square lettering of the Military Grid Reference System (NGA.STND.0037, "Universal
Grids and Grid Reference Systems", 2014, appendix B); and, for where Sentinel-2 anchors its tiles in those
squares and BigEarthNet its patches in those tiles, the real patches, which the tests compare.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from bigearthnet.bands import PATCH_M
from bigearthnet.errors import SourceError

_TILE: Final = re.compile(r"(?P<zone>[1-9]|[0-5]\d|60)(?P<band>[N-X])(?P<column>[A-Z])(?P<row>[A-V])", re.ASCII)
_BANDS: Final = "NPQRSTUVWX"
"""Latitude bands of the northern hemisphere, eight degrees each."""
_COLUMNS: Final = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")
"""Column letters of 100 km squares by zone modulo 3; the first column starts at an easting of 100 km."""
_ROWS: Final = "ABCDEFGHJKLMNPQRSTUV"
"""Row letters of 100 km squares from the equator in odd zones; even zones start at F."""
_SQUARE_M: Final = 100_000
_CYCLE_M: Final = len(_ROWS) * _SQUARE_M
_DEGREE_M: Final = 111_100
"""Northing of one degree of latitude: rough, but the row letters repeat only every 2,000 km."""
_GRID_M: Final = 60
"""Sentinel-2 aligns tile corners with the largest pixel: outwards, to the west and to the north."""


class Corner(NamedTuple):
    """The upper-left corner of a patch."""

    epsg: int
    """EPSG code of the WGS 84 / UTM zone north."""
    x_ul: int
    """Easting in metres."""
    y_ul: int
    """Northing in metres."""


def locate_patch(tile: str, column: int, row: int) -> Corner:
    """Compute the upper-left corner of a v1.0 patch.

    Args:
        tile: MGRS tile of the northern hemisphere, such as `33UUP`.
        column: Index of the patch in its tile, from the west: the last but one field of the patch name.
        row: Index of the patch in its tile, from the north: the last field of the patch name.

    Raises:
        SourceError: The tile is none, or its letters do not exist in its zone.
    """
    match = _TILE.fullmatch(tile)
    zone = int(match["zone"]) if match else 0
    columns = _COLUMNS[zone % 3]
    if not match or not zone or match["column"] not in columns or match["row"] not in _ROWS:
        raise SourceError(f"expected a northern MGRS tile such as 33UUP, found {tile!r}")
    west = (columns.index(match["column"]) + 1) * _SQUARE_M
    first_row = 0 if zone % 2 else _ROWS.index("F")
    south = (_ROWS.index(match["row"]) - first_row) % len(_ROWS) * _SQUARE_M
    middle = (_BANDS.index(match["band"]) * 8 + 4) * _DEGREE_M
    north = south + _SQUARE_M + round((middle - south) / _CYCLE_M) * _CYCLE_M
    return Corner(
        epsg=32_600 + zone,
        x_ul=west // _GRID_M * _GRID_M + column * PATCH_M,
        y_ul=-(-north // _GRID_M) * _GRID_M - row * PATCH_M,
    )
