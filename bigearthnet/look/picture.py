"""Turn stored pixels into pictures: plain arithmetic, from planes of numbers to red, green and blue.

pixels = read_pixels(store, group, index)
picture = render_picture("rgb", name_planes(group, pixels))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bigearthnet.bands import BAND_SETS, REFERENCE_MAP, S1_10M, BandGroup
from bigearthnet.errors import OptionError
from bigearthnet.labels import CORINE_COLOURS
from bigearthnet.look.colours import NEUTRAL, VIRIDIS

Stretch = Literal["fixed", "percentile", "full"]
"""What is drawn darkest and brightest: a `fixed` range, the same for every patch, so that two can be compared; the 2nd
and 98th `percentile` of each band of the patch; or its lowest and highest value, `full`."""

STRETCHES: Final[tuple[Stretch, ...]] = get_args(Stretch)

PERCENTILES: Final = (2, 98)

RANGES: Final[dict[str, tuple[float, float]]] = {
    "B01": (0, 2_000),
    "B02": (0, 1_600),
    "B03": (0, 1_600),
    "B04": (0, 1_600),
    "B05": (0, 3_100),
    "B06": (0, 5_100),
    "B07": (0, 5_900),
    "B08": (0, 6_300),
    "B8A": (0, 6_300),
    "B09": (0, 6_200),
    "B11": (0, 4_800),
    "B12": (0, 3_500),
    "VV": (-25, 0),
    "VH": (-30, -5),
    "VV-VH": (0, 15),
}
"""Stored values that are drawn darkest and brightest, where the stretch is fixed.

Sentinel-2: from 0 to the mean plus three standard deviations of the band over BigEarthNet, to the nearest hundred;
summer pastures reach 7,000 in B08. The bands of true colour share one ceiling, so that what is grey stays grey: B04's
mean plus one and a half, since most land is dark in them. Brighter snow and clouds are saturated.

Sentinel-1, in dB: the mean, plus and minus two standard deviations, to multiples of five; VV - VH is a ratio of
intensities in dB.

Source: means and standard deviations from https://git.tu-berlin.de/rsim/bigearthnet-models-tf (`BigEarthNet.py`), as
`bigearthnet_common.constants` has them: B04 590 + 1.5 x 676 = 1,604; B08 2,219 + 3 x 1,365 = 6,315; VV -12.6 and 5.1,
VH -19.3 and 5.5.
"""


@dataclass(frozen=True)
class Picture:
    """What to draw."""

    name: str
    title: str
    bands: tuple[str, ...]
    """What it is made from: red, green and blue, or a single band."""


RGB: Final = Picture("rgb", "true colour", ("B04", "B03", "B02"))
FALSE_COLOUR: Final = Picture("false-colour", "near infrared, red and green as colours", ("B08", "B04", "B03"))
S1: Final = Picture("s1", "Sentinel-1, VV, VH and VV - VH as colours", S1_10M.bands)
MAP: Final = Picture("map", "CORINE Land Cover 2018", REFERENCE_MAP.bands)

PICTURES: Final = {
    picture.name: picture
    for picture in (RGB, FALSE_COLOUR, S1, MAP, *(Picture(band, band, (band,)) for band in BAND_SETS["all"]))
}
"""Everything that can be drawn, by name; bands have their own."""


def find_picture(name: str) -> Picture:
    """Find a picture by its name, in capitals or not.

    Raises:
        OptionError: There is no such picture.
    """
    for picture in PICTURES.values():
        if picture.name.lower() == name.lower():
            return picture
    raise OptionError(f"expected a picture of {', '.join(PICTURES)}, found {name!r}")


def name_planes(group: BandGroup, pixels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Name the bands of one array of a patch, shape (band, row, col)."""
    return dict(zip(group.bands, pixels, strict=True))


def render_picture(name: str, planes: Mapping[str, NDArray[Any]], stretch: Stretch = "fixed") -> NDArray[np.uint8]:
    """Draw a picture at the native size of its bands.

    Args:
        name: Name of one of `PICTURES`.
        planes: Stored pixels of a patch by name of band, each of shape (row, col); it may hold more than is needed.
        stretch: What becomes the darkest and the brightest; a map has its colours and none.

    Returns:
        Red, green and blue, shape (row, col, 3). Pixels without a value (NaN) are grey.

    Raises:
        OptionError: There is no such picture, or a band of it is not in `planes`.
    """
    picture = find_picture(name)
    if missing := [band for band in picture.bands if band not in planes]:
        raise OptionError(f"{picture.name} is drawn from {', '.join(picture.bands)}; {', '.join(missing)} is not there")
    bands = {band: planes[band] for band in picture.bands}
    if picture is MAP:
        return _render_map(*bands.values())
    if picture is S1:
        bands["VV-VH"] = bands["VV"] - bands["VH"]
    levels = [_stretch(plane, *_choose_range(band, plane, stretch)) for band, plane in bands.items()]
    drawn: NDArray[np.uint8] = np.stack(levels, axis=-1) if len(levels) == 3 else VIRIDIS[levels[0]]
    unknown = np.isnan(np.stack(tuple(bands.values()))).any(axis=0)
    drawn[unknown] = NEUTRAL
    return drawn


def _choose_range(band: str, plane: NDArray[Any], stretch: Stretch) -> tuple[float, float]:
    if stretch == "fixed":
        return RANGES[band]
    known = plane[np.isfinite(plane)]
    if not known.size:
        return RANGES[band]
    low, high = np.percentile(known, PERCENTILES if stretch == "percentile" else (0, 100))
    return float(low), float(high)


def _stretch(plane: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Bring stored values to 0..255; a plane of one value is dark, and so is NaN."""
    scaled = (plane.astype(np.float64) - low) / ((high - low) or 1) * 255
    levels: NDArray[np.uint8] = np.rint(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8)
    return levels


def _build_map_colours() -> NDArray[np.uint8]:
    """Return a colour for each code up to 999; all higher ones share the last."""
    colours = np.full((1_000, 3), NEUTRAL, np.uint8)
    for code, colour in CORINE_COLOURS.items():
        colours[code] = colour
    return colours


_MAP_COLOURS: Final = _build_map_colours()


def _render_map(codes: NDArray[Any]) -> NDArray[np.uint8]:
    colours: NDArray[np.uint8] = _MAP_COLOURS[np.minimum(codes, len(_MAP_COLOURS) - 1)]
    return colours


def enlarge(picture: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Repeat every pixel `factor` times in both directions, inventing none in between."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)
