"""What Sentinel-1 sees of the same landscape: backscatter in VV and VH, through clouds, with speckle.

The figures are made up to be plausible and of the right order, as those of `converter.sample.surface` are. Classes that
look alike to Sentinel-2 differ here on purpose: flooded stems, wet and salty ground, streets that face the radar.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from converter.sample.landscape import Land, Scene
from converter.sample.noise import SIZE, Floats

ECHOES: Final[dict[str, tuple[float, float]]] = {
    "leaves": (-8.5, -13.5),
    "needles": (-9.5, -14.0),
    "oaks": (-10.0, -15.5),
    "branches": (-9.5, -15.0),
    "grass": (-12.0, -17.5),
    "crops": (-11.0, -16.5),
    "straw": (-12.5, -19.5),
    "soil": (-12.0, -20.5),
    "heath": (-12.0, -18.0),
    "maquis": (-11.0, -16.5),
    "peat": (-12.0, -19.0),
    "reeds": (-9.5, -18.0),
    "asphalt": (-15.0, -23.0),
    "tiles": (-2.5, -11.0),
    "concrete": (-1.5, -11.5),
    "rock": (-11.0, -19.0),
    "sand": (-17.5, -26.0),
    "ash": (-13.0, -21.0),
    "mud": (-15.0, -24.0),
    "brine": (-20.0, -28.0),
    "silt": (-19.0, -27.0),
    "lake": (-21.0, -28.5),
    "sea": (-19.0, -28.0),
}
"""Backscatter of each material in VV and VH, in dB."""

CLASS_ECHOES: Final[dict[str, tuple[float, float]]] = {
    "Continuous urban fabric": (2.0, 2.0),
    "Industrial or commercial units": (2.5, 1.5),
    "Port areas": (3.5, 2.0),
    "Airports": (-2.0, -2.5),
    "Rice fields": (2.5, -1.5),
    "Vineyards": (1.5, -0.5),
    "Olive groves": (0.0, 1.0),
    "Agro-forestry areas": (0.0, 1.0),
    "Moors and heathland": (0.5, 1.0),
    "Beaches, dunes, sands": (-1.0, -1.0),
    "Inland marshes": (3.0, -0.5),
    "Peatbogs": (-2.0, -2.0),
    "Salt marshes": (-2.0, -3.0),
    "Salines": (-2.0, -1.0),
    "Intertidal flats": (-1.5, -2.0),
    "Sea and ocean": (2.0, 0.5),
}
"""What a class adds to its materials, in dB: how they stand to the radar, and how wet they are."""

_POLARISATIONS: Final = ("VV", "VH")
_WATERS: Final = frozenset({"lake", "sea", "silt", "brine"})
_WIND_DB: Final = (2.0, 0.7)
"""Spread of the roughness of water from patch to patch, in VV and VH."""
_SPREAD_DB: Final = 0.7
"""Spread of any other material from patch to patch."""
_SLOPE_DB: Final = 10.0
"""How much more a slope of unit hilliness returns when it faces the radar."""
_SNOW_DB: Final = (-2.5, -2.0)
"""What wet snow leaves of the echo of the ground below."""
_SPECKLE_DB: Final = 2.2
"""Spread of the intensity of 4.4 looks, those of a GRD product in IW mode."""
_SKEW: Final = 0.09
"""Makes the logarithm of speckle lean to the dark side as that of a gamma distribution of as many looks does."""
_SMEAR: Final = np.array((1, 6, 15, 20, 15, 6, 1), np.float32)
"""A 10 m pixel shares most of its signal with its neighbours: the resolution is 20 m."""


def sense_backscatter(land: Land, scene: Scene, random: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Render the two bands of the Sentinel-1 patch.

    Args:
        land: The ground.
        scene: Where and when it is seen.
        random: Decides moisture, wind and speckle.

    Returns:
        Backscatter in dB by band name, as (row, col).
    """
    power = 10 ** (_wet(land.materials, scene, random) / 10)
    echo = 10 * np.log10(np.einsum("mp,myx->pyx", power, land.shares))
    extra = np.array([CLASS_ECHOES.get(label, (0, 0)) for label in land.cover.labels], np.float32)
    echo += np.moveaxis(extra[land.cover.position], -1, 0)
    echo -= _SLOPE_DB * scene.hilliness * land.relief
    if scene.snow:
        echo += np.multiply.outer(np.array(_SNOW_DB, np.float32), land.cover.strength("snow"))
    speckle = _draw_speckle(random)
    echo += _SPECKLE_DB * (speckle - _SKEW * (speckle**2 - 1))
    return dict(zip(_POLARISATIONS, np.asarray(echo, np.float32), strict=True))


def _wet(materials: tuple[str, ...], scene: Scene, random: np.random.Generator) -> Floats:
    """Return the echo of the materials as this patch's season, rain and wind have them, as (material, band) in dB."""
    echoes = np.empty((len(materials), len(_POLARISATIONS)), np.float32)
    for row, name in zip(echoes, materials, strict=True):
        dormant, share = scene.dormancy(name)
        row[:] = (1 - share) * np.array(ECHOES[name]) + share * np.array(ECHOES[dormant])
        spread = np.array(_WIND_DB if name in _WATERS else (_SPREAD_DB, _SPREAD_DB), np.float32)
        row += spread * np.clip(random.standard_normal(2, np.float32), -2, 2)
    return echoes


def _draw_speckle(random: np.random.Generator) -> Floats:
    """Draw unit-variance noise of short range for each band, as (band, row, col)."""
    margin = len(_SMEAR) - 1
    field = random.standard_normal((len(_POLARISATIONS), SIZE + margin, SIZE + margin), np.float32)
    rows = sum(weight * field[:, start : start + SIZE] for start, weight in enumerate(_SMEAR))
    smeared = sum(weight * rows[:, :, start : start + SIZE] for start, weight in enumerate(_SMEAR))
    return np.asarray(smeared / np.float32((_SMEAR**2).sum()), np.float32)
