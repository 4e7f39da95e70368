"""Outlines on the globe, against pyproj and geopandas."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from pyproj import Transformer

from bigearthnet.store.footprint import outline_patches

CORNERS = [
    (32629, 604_800.0, 5_834_040.0),
    (32633, 404_400.0, 5_342_400.0),
    (32635, 668_400.0, 6_954_420.0),
    (32629, 567_180.0, 4_358_040.0),
    (32634, 300_000.0, 4_600_020.0),
    (32636, 699_960.0, 7_700_040.0),
]


def outline(corners: list[tuple[int, float, float]]) -> tuple[list[shapely.Polygon], np.ndarray]:
    epsg, x_ul, y_ul = zip(*corners, strict=True)
    wkb, bounds = outline_patches(np.array(epsg, np.int32), np.array(x_ul), np.array(y_ul))
    return [shapely.from_wkb(content) for content in wkb], bounds


def test_outlines_are_where_pyproj_puts_their_corners() -> None:
    polygons, bounds = outline(CORNERS)
    for polygon, box, (epsg, x_ul, y_ul) in zip(polygons, bounds, CORNERS, strict=True):
        project = Transformer.from_crs(epsg, "OGC:CRS84", always_xy=True).transform
        corners = [(x_ul + east, y_ul - south) for east, south in ((0, 0), (0, 1200), (1200, 1200), (1200, 0), (0, 0))]
        expected = np.array([project(*corner) for corner in corners])
        np.testing.assert_allclose(np.array(polygon.exterior.coords), expected, rtol=0, atol=6e-8)
        np.testing.assert_allclose(box, polygon.bounds, rtol=0, atol=0)
        assert polygon.is_valid
        assert polygon.exterior.is_ccw


def test_an_outline_does_not_depend_on_its_neighbours() -> None:
    together, _ = outline(CORNERS)
    for polygon, corner in zip(together, CORNERS, strict=True):
        assert outline([corner])[0] == [polygon]
    assert outline(CORNERS[::-1])[0] == together[::-1]


def test_coordinates_have_seven_decimals_so_that_versions_of_proj_agree() -> None:
    polygons, _ = outline(CORNERS)
    coordinates = shapely.get_coordinates(polygons)
    np.testing.assert_array_equal(coordinates, coordinates.round(7))


def test_the_wkb_is_little_endian_and_two_dimensional() -> None:
    wkb, _ = outline_patches(*(np.array([value]) for value in CORNERS[0]))
    assert wkb[0][:5] == b"\x01\x03\x00\x00\x00"


@pytest.mark.parametrize("n_patches", [1, 3])
def test_shapes_follow_the_number_of_patches(n_patches: int) -> None:
    polygons, bounds = outline(CORNERS[:n_patches])
    assert len(polygons) == n_patches
    assert bounds.shape == (n_patches, 4)
