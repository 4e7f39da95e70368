"""Pictures are compared with matplotlib, which knows the same colour map and the same arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from bigearthnet.bands import BAND_SETS, S2_10M
from bigearthnet.errors import OptionError
from bigearthnet.labels import CORINE_CODES, CORINE_COLOURS
from bigearthnet.look.picture import (
    NEUTRAL,
    PICTURES,
    RANGES,
    VIRIDIS,
    Stretch,
    enlarge,
    find_picture,
    name_planes,
    render_picture,
)


def make_planes(seed: int = 0) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    planes: dict[str, NDArray[Any]] = {
        band: random.integers(0, 8_000, (6, 6), dtype=np.uint16) for band in BAND_SETS["s2"]
    }
    return planes | {band: random.normal(-15, 6, (6, 6)).astype(np.float32) for band in BAND_SETS["s1"]}


def test_true_colour_is_white_at_a_reflectance_of_0_16() -> None:
    values = np.array([[0, 400, 800, 1_200, 1_600, 20_000]], np.uint16)
    drawn = render_picture("rgb", dict.fromkeys(("B02", "B03", "B04"), values))
    assert drawn[0].tolist() == [[grey] * 3 for grey in (0, 64, 128, 191, 255, 255)]
    assert drawn.dtype == np.uint8


def test_each_band_becomes_its_colour() -> None:
    planes = {band: np.full((2, 2), value, np.uint16) for band, value in (("B04", 1_600), ("B03", 800), ("B02", 0))}
    assert render_picture("rgb", planes)[1, 1].tolist() == [255, 128, 0]
    assert render_picture("false-colour", planes | {"B08": np.zeros((2, 2), np.uint16)})[0, 0].tolist() == [0, 255, 128]


@pytest.mark.parametrize("band", BAND_SETS["all"])
@pytest.mark.parametrize(("stretch", "percentiles"), [("fixed", None), ("percentile", (2, 98)), ("full", (0, 100))])
def test_a_single_band_is_what_matplotlib_draws(
    band: str, stretch: Stretch, percentiles: tuple[int, int] | None
) -> None:
    planes = make_planes()
    low, high = np.percentile(planes[band], percentiles) if percentiles else RANGES[band]
    expected = Normalize(low, high, clip=True)(planes[band].astype(np.float64)).filled()
    drawn = render_picture(band, planes, stretch)
    assert np.array_equal(drawn, colormaps["viridis"](np.rint(expected * 255).astype(int), bytes=True)[..., :3])


def test_the_colour_map_is_viridis() -> None:
    assert np.array_equal(VIRIDIS, colormaps["viridis"](np.arange(256), bytes=True)[:, :3])


def test_the_stretch_of_a_colour_picture_is_that_of_each_band() -> None:
    planes = make_planes()
    drawn = render_picture("false-colour", planes, "full")
    for channel, band in enumerate(("B08", "B04", "B03")):
        assert drawn[..., channel].min() == 0
        assert drawn[..., channel].max() == 255
        assert np.array_equal(drawn[..., channel] == 255, planes[band] == planes[band].max())


def test_radar_is_drawn_in_decibels_and_their_difference() -> None:
    planes = {"VV": np.array([[-25, 0, -12.5]], np.float32), "VH": np.array([[-30, -15, -27.5]], np.float32)}
    assert render_picture("s1", planes)[0].tolist() == [[0, 0, 85], [255, 153, 255], [128, 26, 255]]


def test_pixels_without_a_value_are_grey_however_they_are_stretched() -> None:
    planes = {"VV": np.full((2, 3), np.nan, np.float32), "VH": np.full((2, 3), -10, np.float32)}
    for stretch in ("fixed", "percentile", "full"):
        for name in ("s1", "VV"):
            assert (render_picture(name, planes, stretch) == NEUTRAL).all()
    planes["VV"][0, 0] = -5
    assert render_picture("s1", planes)[0, 0].tolist() != list(NEUTRAL)


def test_a_plane_of_one_value_is_drawn_without_a_division_by_zero() -> None:
    assert render_picture("B08", {"B08": np.full((2, 2), 7, np.uint16)}, "full")[0, 0].tolist() == VIRIDIS[0].tolist()


def test_the_map_has_the_official_colour_of_each_class() -> None:
    codes = np.array([[111, 112, 211, 312, 512, 523]], np.uint16)
    expected = [(230, 0, 77), (255, 0, 0), (255, 255, 168), (0, 166, 0), (128, 242, 230), (230, 242, 255)]
    assert list(map(tuple, render_picture("map", {"reference_map": codes})[0].tolist())) == expected


def test_every_class_has_a_colour_of_its_own_and_nothing_else_has_one() -> None:
    assert set(CORINE_COLOURS) == {*CORINE_CODES.values(), 335}
    assert len({*CORINE_COLOURS.values(), NEUTRAL}) == 45
    drawn = render_picture("map", {"reference_map": np.array([[0, 110, 999, 1_000, 65_535]], np.uint16)})
    assert (drawn == NEUTRAL).all()


def test_the_pixels_of_an_array_are_named_by_its_bands() -> None:
    pixels = np.arange(4 * 9).reshape(4, 3, 3)
    planes = name_planes(S2_10M, pixels)
    assert list(planes) == ["B02", "B03", "B04", "B08"]
    assert np.array_equal(planes["B08"], pixels[3])


def test_enlarging_repeats_pixels() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(enlarge(picture, 3), np.kron(picture, np.ones((3, 3, 1), np.uint8)))


def test_a_missing_band_is_named() -> None:
    with pytest.raises(OptionError, match="false-colour is drawn from B08, B04, B03; B08 is not there"):
        render_picture("false-colour", {"B04": np.zeros((1, 1)), "B03": np.zeros((1, 1))})


def test_an_unknown_picture_is_refused_with_all_there_are() -> None:
    with pytest.raises(OptionError, match=r"expected a picture of rgb, false-colour, s1, map, B02, .* found 'ndvi'"):
        find_picture("ndvi")


def test_every_picture_is_found_in_any_case() -> None:
    for name, picture in PICTURES.items():
        assert find_picture(name.upper()) is find_picture(name.lower()) is picture
