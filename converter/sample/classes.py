"""The 43 classes as a made-up patch shows them: how often, and how each looks to Sentinel-2 and Sentinel-1.

How often is rounded from the official v2.0 metadata (549,488 patches, https://doi.org/10.5281/zenodo.10891137), whose
19 classes are divided among the 43 by guess. How they look is plausible to the eye and of the right order in every
band, but measured nowhere: nothing about real surfaces can be learnt from it. Classes that look alike in red, green and
blue differ in the infrared or to the radar on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from bigearthnet.labels import CORINE_CODES, LABEL_19_OF_43, LABELS_43

BANDS: Final = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
"""Sentinel-2 bands in the order of their wavelengths, as `Look.reflectance` has them."""


class Texture(NamedTuple):
    """How ground varies: the share of a class's companion in it, on average and by how much it changes."""

    share: float
    plots: float = 0
    """From one plot to the next."""
    plot_px: int = 1
    """Width of a plot in pixels of 10 m."""
    stands: float = 0
    """Smoothly, over some hundred metres."""
    grain: float = 0
    """From pixel to pixel."""
    shade: float = 0
    """Change of brightness from pixel to pixel."""


_FIELDS: Final = Texture(0.35, plots=0.32, plot_px=18, stands=0.05, grain=0.03, shade=0.03)
_MEADOW: Final = Texture(0.15, plots=0.14, plot_px=14, stands=0.08, grain=0.03, shade=0.04)
_PLOTS: Final = Texture(0.45, plots=0.35, plot_px=6, stands=0.08, grain=0.08, shade=0.05)
_ROWS: Final = Texture(0.45, plots=0.15, plot_px=6, stands=0.1, grain=0.22, shade=0.06)
_BUILT: Final = Texture(0.35, plots=0.2, plot_px=4, stands=0.1, grain=0.3, shade=0.12)
_CANOPY: Final = Texture(0.05, stands=0.1, grain=0.06, shade=0.15)
_MOSAIC: Final = Texture(0.45, stands=0.25, grain=0.2, shade=0.1)
_OPEN: Final = Texture(0.15, stands=0.14, grain=0.06, shade=0.06)
_WATER: Final = Texture(0, shade=0.015)


class Look(NamedTuple):
    """A class."""

    percent: tuple[float, ...]
    """Patches that show it, in each of the regions of `_REGION_OF`."""
    texture: Texture
    companion: int
    """CORINE code of the class whose look is mixed into it."""
    reflectance: tuple[int, ...]
    """In each of `BANDS`, x 1,000, in summer."""
    echo: tuple[int, int]
    """Backscatter in VV and VH, in dB."""


# fmt: off
LOOKS: Final = {
    111: Look((1, 4, 3, 2, 2), _BUILT, 122, (90, 105, 120, 145, 165, 175, 185, 195, 200, 205, 235, 215), (-2, -11)),
    112: Look((8, 33, 42, 22, 7), _BUILT, 141, (70, 84, 104, 118, 142, 180, 196, 206, 213, 216, 206, 175), (-4, -13)),
    121: Look((2, 5, 7, 4, 3), _BUILT, 122, (170, 200, 215, 225, 230, 235, 245, 250, 250, 260, 250, 230), (1, -10)),
    122: Look((.4, 1, 2, .4, .5), _MEADOW, 141, (70, 80, 91, 96, 109, 120, 125, 130, 135, 140, 155, 142), (-14, -22)),
    123: Look((.2, .6, 0, 0, .4), _BUILT, 523, (150, 175, 187, 195, 200, 205, 210, 216, 218, 226, 226, 210), (2, -9)),
    124: Look((.2, .5, .6, .2, .3), _FIELDS, 122, (45, 50, 80, 62, 128, 280, 330, 345, 358, 360, 215, 130), (-15, -21)),
    131: Look((1, 1, 1, 2, 1), _OPEN, 133, (112, 131, 155, 175, 188, 199, 206, 215, 222, 225, 270, 248), (-12, -20)),
    132: Look((.1, .2, .1, .2, .1), _OPEN, 321, (80, 97, 126, 152, 174, 200, 215, 226, 236, 242, 293, 238), (-8, -17)),
    133: Look((.1, .2, .3, .2, .3), _OPEN, 131, (65, 80, 110, 140, 160, 180, 195, 205, 215, 220, 290, 250), (-12, -20)),
    141: Look((.3, .6, 1, .2, .2), _MOSAIC, 311, (30, 35, 72, 44, 128, 335, 405, 420, 440, 440, 225, 115), (-10, -16)),
    142: Look((.4, 2, 2, .2, .7), _PLOTS, 141, (33, 38, 74, 51, 130, 321, 388, 402, 420, 421, 230, 126), (-12, -19)),
    211: Look((40, 42, 66, 44, 24), _FIELDS, 133, (32, 37, 74, 48, 115, 270, 320, 335, 345, 345, 170, 85), (-11, -17)),
    212: Look((0, 0, 0, .5, 18), _FIELDS, 211, (29, 34, 68, 40, 118, 320, 380, 395, 410, 410, 150, 68), (-9, -14)),
    213: Look((0, 0, 0, 0, 4), _FIELDS, 512, (34, 42, 76, 56, 100, 190, 222, 230, 236, 234, 120, 70), (-7, -19)),
    221: Look((0, 0, 4, 1, 7), _ROWS, 133, (31, 38, 68, 52, 105, 235, 275, 292, 303, 304, 175, 95), (-8, -18)),
    222: Look((.5, .1, .7, 1, 5), _ROWS, 311, (42, 50, 82, 78, 132, 268, 318, 330, 345, 346, 245, 160), (-10, -17)),
    223: Look((0, 0, 0, 0, 12), _ROWS, 133, (23, 30, 48, 43, 85, 175, 205, 220, 235, 235, 165, 85), (-10, -14)),
    231: Look((19, 68, 39, 10, 15), _MEADOW, 321, (32, 36, 77, 45, 135, 350, 425, 440, 460, 460, 235, 120), (-12, -18)),
    241: Look((0, 0, 0, 0, 6), _ROWS, 223, (45, 55, 88, 88, 135, 230, 265, 278, 290, 292, 230, 158), (-11, -17)),
    242: Look((25, 30, 36, 37, 21), _PLOTS, 231, (56, 68, 98, 108, 144, 210, 235, 248, 260, 262, 245, 190), (-9, -17)),
    243: Look((30, 20, 23, 49, 18), _MOSAIC, 311, (36, 42, 74, 62, 122, 265, 312, 326, 338, 338, 212, 128), (-11, -17)),
    244: Look((0, 0, 0, 0, 37), _MOSAIC, 223, (48, 58, 95, 92, 156, 285, 335, 350, 365, 367, 285, 172), (-12, -18)),
    311: Look((22, 24, 42, 66, 40), _CANOPY, 324, (14, 20, 38, 25, 84, 274, 335, 350, 365, 365, 166, 72), (-8, -13)),
    312: Look((51, 18, 32, 3, 10), _CANOPY, 324, (13, 19, 35, 24, 64, 168, 202, 216, 228, 228, 100, 45), (-10, -14)),
    313: Look((56, 18, 48, 4, 16), _MOSAIC, 312, (14, 20, 38, 25, 84, 274, 335, 350, 365, 365, 166, 72), (-8, -13)),
    321: Look((.2, .8, 2, 14, 2), _OPEN, 332, (54, 65, 99, 99, 155, 265, 305, 318, 336, 339, 272, 175), (-12, -19)),
    322: Look((.3, 6, 1, .4, 4), _OPEN, 324, (26, 33, 50, 51, 85, 150, 175, 190, 205, 205, 190, 115), (-11, -17)),
    323: Look((0, 0, 0, .1, 9), _OPEN, 133, (26, 33, 51, 49, 90, 190, 225, 240, 255, 255, 165, 85), (-11, -16)),
    324: Look((32, 9, 3, 38, 44), _MOSAIC, 311, (29, 36, 64, 50, 104, 220, 262, 276, 290, 290, 195, 110), (-10, -16)),
    331: Look((1, 2, 0, .2, 4), _OPEN, 321, (150, 180, 225, 260, 280, 300, 310, 320, 330, 330, 400, 360), (-18, -27)),
    332: Look((.2, .2, 1, .4, .3), _OPEN, 333, (95, 110, 125, 138, 148, 156, 162, 170, 175, 180, 215, 200), (-11, -19)),
    333: Look((.2, .2, 1, 2, .4), _MOSAIC, 332, (60, 72, 104, 112, 156, 230, 258, 272, 286, 290, 275, 190), (-12, -20)),
    334: Look((0, 0, 0, .2, .6), _OPEN, 322, (25, 30, 34, 41, 55, 70, 80, 90, 100, 105, 190, 185), (-14, -21)),
    411: Look((2, 1, .8, 1, .3), _OPEN, 512, (28, 35, 58, 50, 100, 210, 245, 255, 260, 245, 115, 50), (-6, -18)),
    412: Look((5, 6, .4, .1, 0), _OPEN, 512, (27, 34, 51, 52, 85, 140, 160, 170, 180, 175, 105, 52), (-14, -21)),
    421: Look((.3, 2, 0, 0, 3), _OPEN, 423, (36, 42, 64, 56, 104, 208, 242, 250, 256, 246, 120, 56), (-13, -22)),
    422: Look((0, 0, 0, 0, 2), _PLOTS, 423, (90, 110, 135, 125, 110, 80, 75, 70, 60, 45, 12, 8), (-21, -29)),
    423: Look((0, 1, 0, 0, .8), _OPEN, 523, (60, 70, 83, 88, 93, 98, 102, 102, 100, 95, 60, 40), (-17, -26)),
    511: Look((4, 2, 3, 3, 2), _WATER, 511, (27, 35, 48, 37, 40, 26, 24, 21, 18, 14, 7, 5), (-19, -27)),
    512: Look((19, 2, 4, 1, 3), _WATER, 512, (19, 23, 25, 15, 18, 12, 12, 10, 8, 6, 4, 2), (-21, -29)),
    521: Look((2, .2, 0, 0, 1), _WATER, 521, (29, 32, 39, 28, 29, 20, 19, 17, 15, 13, 7, 5), (-18, -28)),
    522: Look((.2, 1, 0, 0, 2), _WATER, 522, (30, 37, 52, 42, 44, 28, 26, 24, 20, 17, 8, 5), (-19, -27)),
    523: Look((12, 11, 0, 0, 8), _WATER, 523, (26, 25, 23, 13, 13, 11, 11, 11, 9, 8, 5, 4), (-16, -26)),
}
# fmt: on
"""Each class, by its CORINE code."""

_REGION_OF: Final = {
    **dict.fromkeys(("Finland", "Lithuania"), 0),
    **dict.fromkeys(("Ireland", "Belgium"), 1),
    **dict.fromkeys(("Austria", "Luxembourg", "Switzerland"), 2),
    **dict.fromkeys(("Serbia", "Kosovo"), 3),
    "Portugal": 4,
}
"""Column of `Look.percent` by country."""

_N_LABELS: Final = (18, 20, 29, 21, 9, 3)
"""Percentage of patches with one to six labels; counted over the v2.0 metadata, mean 2.95."""


def draw_labels(country: str, draw: Callable[[], float], *, with_19: bool = True) -> tuple[str, ...]:
    """Draw the labels of one patch.

    Args:
        country: One of the ten of the archive.
        draw: Returns a new number in [0, 1) at every call.
        with_19: Whether the patch must have a label with a 19-class form, or must have none.

    Returns:
        One to six names from `LABELS_43`, in that order.
    """
    target = 100 * draw()
    n_labels = next(n for n in range(1, 7) if target < sum(_N_LABELS[:n]))
    # The shortest of waiting times with these rates is a draw with these weights, and so are the next ones.
    wait = {
        label: -math.log(1 - draw()) / percent
        for label in LABELS_43
        if (percent := LOOKS[CORINE_CODES[label]].percent[_REGION_OF[country]])
    }
    first = min((label for label in wait if with_19 == (LABEL_19_OF_43[label] is not None)), key=wait.__getitem__)
    others = [label for label in wait if label != first and (with_19 or LABEL_19_OF_43[label] is None)]
    chosen = {first, *sorted(others, key=wait.__getitem__)[: (n_labels if with_19 else min(n_labels, 2)) - 1]}
    return tuple(label for label in LABELS_43 if label in chosen)
