"""Outline patches on the globe. The only importer of shapely."""

from __future__ import annotations

from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray

from bigearthnet.bands import PATCH_M

_DECIMALS: Final = 7
"""1e-7 degrees are a centimetre; rounding keeps the bytes the same across versions of PROJ."""


def outline_patches(
    epsg: NDArray[np.int32], x_ul: NDArray[np.float64], y_ul: NDArray[np.float64]
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """Outline patches in longitude and latitude (OGC:CRS84), counter-clockwise.

    Args:
        epsg: EPSG code of each patch's CRS, shape (patch,).
        x_ul: Easting of the upper-left corners in metres, shape (patch,).
        y_ul: Northing of the upper-left corners in metres, shape (patch,).

    Returns:
        WKB polygons of shape (patch,), and their bounds (xmin, ymin, xmax, ymax) in degrees, shape (patch, 4).
    """
    from rasterio.warp import transform  # noqa: PLC0415 - GDAL is needed once, at the end of a run

    east = np.array([0, 0, PATCH_M, PATCH_M, 0.0])
    south = np.array([0, PATCH_M, PATCH_M, 0, 0.0])
    x, y = x_ul[:, None] + east, y_ul[:, None] - south
    rings = np.empty((*x.shape, 2))
    for code in np.unique(epsg):
        rows = epsg == code
        longitude, latitude = transform(f"EPSG:{code}", "OGC:CRS84", x[rows].ravel(), y[rows].ravel())
        rings[rows] = np.stack([longitude, latitude], axis=-1).reshape(-1, len(east), 2)
    outlines = shapely.polygons(rings.round(_DECIMALS))
    wkb = np.asarray(shapely.to_wkb(outlines, byte_order=1), dtype=object)
    return wkb, shapely.bounds(outlines)
