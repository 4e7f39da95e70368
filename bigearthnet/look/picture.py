"""Turn stored pixels into pictures: plain arithmetic, from planes of numbers to red, green and blue.

pixels = read_pixels(store, layout, group, index)
picture = render_picture("rgb", name_planes(group, pixels))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from bigearthnet.bands import BAND_SETS, REFERENCE_MAP, S1_10M, BandGroup
from bigearthnet.errors import OptionError
from bigearthnet.labels import CORINE_COLOURS

Stretch = Literal["fixed", "percentile", "full"]
STRETCHES: Final[dict[Stretch, str]] = {
    "fixed": "the same range of values in all patches",
    "percentile": "percentiles 2 to 98 of each band of a patch",
    "full": "lowest to highest value of each band of a patch",
}
"""What is drawn darkest and brightest; only where it is fixed can two patches be compared."""

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

NEUTRAL: Final = (160, 160, 160)
"""Grey for pixels without a value, and for codes that CORINE does not have; no class has it."""

VIRIDIS: Final[NDArray[np.uint8]] = np.frombuffer(
    bytes.fromhex(
        "44015444025544035745055845065a45085b46095c460b5e460c5f460e61470f6247116347126547146647156747166947186a48196b"
        "481a6c481c6e481d6f481e70482071482172482273482374472575472676472777472878472a79472b7a472c7b462d7c462f7c46307d"
        "46317e45327f45347f453580453681443781443982433a83433b83433c84423d84423e854240854141864142864043874044873f4587"
        "3f47883e48883e49893d4a893d4b893d4c893c4d8a3c4e8a3b508a3b518a3a528b3a538b39548b39558b38568b38578c37588c37598c"
        "365a8c365b8c355c8c355d8c345e8d345f8d33608d33618d32628d32638d31648d31658d31668d30678d30688d2f698d2f6a8d2e6b8e"
        "2e6c8e2e6d8e2d6e8e2d6f8e2c708e2c718e2c728e2b738e2b748e2a758e2a768e2a778e29788e29798e287a8e287a8e287b8e277c8e"
        "277d8e277e8e267f8e26808e26818e25828e25838d24848d24858d24868d23878d23888d23898d22898d228a8d228b8d218c8d218d8c"
        "218e8c208f8c20908c20918c1f928c1f938b1f948b1f958b1f968b1e978a1e988a1e998a1e998a1e9a891e9b891e9c891e9d881e9e88"
        "1e9f881ea0871fa1871fa2861fa38620a48520a58521a68521a78422a78423a88323a98224aa8225ab8126ac8127ad8028ae7f29af7f"
        "2ab07e2bb17d2cb17d2eb27c2fb37b30b47a32b57a33b67935b77836b87738b97639b9763bba753dbb743ebc7340bd7242be7144be70"
        "45bf6f47c06e49c16d4bc26c4dc26b4fc36951c46853c56755c66657c66559c7645bc8625ec96160c96062ca5f64cb5d67cc5c69cc5b"
        "6bcd596dce5870ce5672cf5574d05477d05279d1517cd24f7ed24e81d34c83d34b86d44988d5478bd5468dd64490d64392d74195d73f"
        "97d83e9ad83c9dd93a9fd938a2da37a5da35a7db33aadb32addc30afdc2eb2dd2cb5dd2bb7dd29bade27bdde26bfdf24c2df22c5df21"
        "c7e01fcae01ecde01dcfe11cd2e11bd4e11ad7e219dae218dce218dfe318e1e318e4e318e7e419e9e419ece41aeee51bf1e51cf3e51e"
        "f6e61ff8e621fae622fde724"
    ),
    np.uint8,
).reshape(256, 3)
"""The colour map viridis, shape (256, 3): dark blue to yellow, with lightness that grows evenly.

Source: Nathaniel Smith and Stéfan van der Walt, 2015, https://bids.github.io/colormap/, CC0; as matplotlib has it.
"""

_MAP_COLOURS: Final[NDArray[np.uint8]] = np.full((1_000, 3), NEUTRAL, np.uint8)
"""A colour for each code of the map up to 999; all higher ones share the last."""
_MAP_COLOURS[list(CORINE_COLOURS)] = list(CORINE_COLOURS.values())


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
        return _MAP_COLOURS.take(bands["reference_map"], axis=0, mode="clip")
    if picture is S1:
        bands["VV-VH"] = bands["VV"] - bands["VH"]
    levels = [_stretch(plane, *_choose_range(band, plane, stretch)) for band, plane in bands.items()]
    drawn: NDArray[np.uint8] = np.stack(levels, axis=-1) if len(levels) == 3 else VIRIDIS[levels[0]]
    unknown = np.isnan(np.stack(tuple(bands.values()))).any(axis=0)
    drawn[unknown] = NEUTRAL
    return drawn


def _choose_range(band: str, plane: NDArray[Any], stretch: Stretch) -> tuple[float, float]:
    known = plane[np.isfinite(plane)]
    if stretch == "fixed" or not known.size:
        return RANGES[band]
    low, high = np.percentile(known, (2, 98) if stretch == "percentile" else (0, 100))
    return float(low), float(high)


def _stretch(plane: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Bring stored values to 0..255; a plane of one value is dark, and so is NaN."""
    scaled = (plane.astype(np.float64) - low) / ((high - low) or 1) * 255
    levels: NDArray[np.uint8] = np.rint(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8)
    return levels


def enlarge(picture: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Repeat every pixel `factor` times in both directions, inventing none in between."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)
