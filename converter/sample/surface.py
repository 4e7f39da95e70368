"""What made-up ground is made of: spectra of materials, and the mix and texture of each of the 43 classes.

The figures are made up to be plausible to the eye and of the right order in every band. They were measured
nowhere, and no conclusion about real surfaces can be drawn from them. Materials that look alike in red,
green and blue differ in the red edge and the infrared on purpose: needles and leaves, grass and crops,
heath, maquis and peat, lakes and the sea.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BANDS: Final = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
"""Sentinel-2 bands in the order of their wavelengths: the columns of the tables below."""

SPECTRA: Final[dict[str, tuple[int, ...]]] = {
    # .         B01   B02   B03   B04   B05   B06   B07   B08   B8A   B09   B11   B12
    "leaves": (140, 200, 370, 240, 820, 2700, 3300, 3450, 3600, 3600, 1650, 720),
    "needles": (135, 195, 350, 235, 640, 1700, 2050, 2200, 2300, 2300, 1000, 450),
    "oaks": (230, 300, 480, 430, 850, 1750, 2050, 2200, 2350, 2350, 1650, 850),
    "branches": (260, 330, 430, 480, 700, 1050, 1250, 1350, 1450, 1500, 1650, 1050),
    "grass": (320, 360, 770, 450, 1350, 3500, 4250, 4400, 4600, 4600, 2350, 1200),
    "crops": (320, 370, 740, 480, 1150, 2700, 3200, 3350, 3450, 3450, 1700, 850),
    "straw": (600, 750, 1100, 1350, 1750, 2250, 2450, 2600, 2800, 2850, 3250, 2150),
    "soil": (650, 800, 1100, 1400, 1600, 1800, 1950, 2050, 2150, 2200, 2900, 2500),
    "heath": (260, 330, 500, 510, 850, 1500, 1750, 1900, 2050, 2050, 1900, 1150),
    "maquis": (260, 330, 510, 490, 900, 1900, 2250, 2400, 2550, 2550, 1650, 850),
    "peat": (270, 340, 510, 520, 850, 1400, 1600, 1700, 1800, 1750, 1050, 520),
    "reeds": (280, 350, 580, 500, 1000, 2100, 2450, 2550, 2600, 2450, 1150, 500),
    "asphalt": (750, 850, 950, 1000, 1100, 1200, 1250, 1300, 1350, 1400, 1500, 1400),
    "tiles": (900, 1050, 1200, 1450, 1650, 1750, 1850, 1950, 2000, 2050, 2350, 2150),
    "concrete": (1700, 2000, 2150, 2250, 2300, 2350, 2450, 2500, 2500, 2600, 2500, 2300),
    "rock": (950, 1100, 1250, 1380, 1480, 1560, 1620, 1700, 1750, 1800, 2150, 2000),
    "sand": (1500, 1800, 2250, 2600, 2800, 3000, 3100, 3200, 3300, 3300, 4000, 3600),
    "ash": (250, 300, 340, 410, 550, 700, 800, 900, 1000, 1050, 1900, 1850),
    "mud": (600, 700, 830, 880, 930, 980, 1020, 1020, 1000, 950, 600, 400),
    "brine": (900, 1100, 1350, 1250, 1100, 800, 750, 700, 600, 450, 120, 80),
    "silt": (330, 430, 640, 520, 540, 350, 330, 290, 240, 200, 90, 60),
    "lake": (190, 230, 250, 150, 180, 120, 115, 100, 80, 60, 35, 25),
    "sea": (260, 250, 240, 140, 140, 115, 115, 110, 95, 85, 55, 45),
    "snow": (8300, 8600, 8400, 8300, 8100, 7800, 7600, 7500, 7100, 6300, 800, 700),
    "cloud": (4600, 4700, 4600, 4700, 4900, 5100, 5200, 5300, 5300, 2600, 3600, 2700),
}
"""Surface reflectance x 10,000 of each material in full summer."""

DORMANT: Final = {"leaves": "branches", "grass": "straw", "crops": "soil", "reeds": "straw"}
"""What a material turns into outside its growing season."""

DORMANCY: Final[dict[str, dict[str, float]]] = {
    "Spring": {"leaves": 0.15, "grass": 0.05, "crops": 0.1, "reeds": 0.3},
    "Summer": {"leaves": 0, "grass": 0.1, "crops": 0.3, "reeds": 0},
    "Fall": {"leaves": 0.25, "grass": 0.15, "crops": 0.5, "reeds": 0.3},
    "Winter": {"leaves": 0.75, "grass": 0.35, "crops": 0.5, "reeds": 0.7},
}
"""Share of a material that is dormant in a season."""

DORMANCY_SOUTH: Final[dict[str, dict[str, float]]] = {
    "Spring": {"leaves": 0.05, "grass": 0.1, "crops": 0.1, "reeds": 0.1},
    "Summer": {"leaves": 0, "grass": 0.7, "crops": 0.4, "reeds": 0.2},
    "Fall": {"leaves": 0.1, "grass": 0.6, "crops": 0.6, "reeds": 0.3},
    "Winter": {"leaves": 0.3, "grass": 0.15, "crops": 0.4, "reeds": 0.3},
}
"""The same where summers are dry: in Portugal."""


@dataclass(frozen=True)
class Texture:
    """How the mix of a class varies over the ground; strengths are in units of e-folds."""

    parcels: float = 0
    """From one large field to the next."""
    plots: float = 0
    """From one small plot to the next."""
    stands: float = 0
    """Smoothly, over some hundred metres."""
    grain: float = 0
    """From one 10 m pixel to the next."""
    shade: float = 0
    """Brightness from one 10 m pixel to the next."""
    hedges: float = 0
    """Share of trees along the edges of fields and plots."""
    snow: float = 1
    """Share that snow can cover: little under a canopy."""
    road: float = 1
    """Share of the pixels under a road that are road."""


_FIELDS: Final = Texture(parcels=1.5, stands=0.2, grain=0.15, shade=0.04, hedges=0.1)
_MEADOWS: Final = Texture(parcels=0.6, stands=0.3, grain=0.2, shade=0.05, hedges=0.5)
_PLOTS: Final = Texture(plots=1.2, stands=0.3, grain=0.2, shade=0.06, hedges=0.25)
_ROWS: Final = Texture(plots=0.5, stands=0.2, grain=0.6, shade=0.08, hedges=0.1)
_CANOPY: Final = Texture(stands=0.4, grain=0.5, shade=0.16, snow=0.35, road=0.5)
_MOSAIC: Final = Texture(stands=0.9, grain=0.6, shade=0.12, snow=0.7, road=0.7)
_OPEN: Final = Texture(stands=0.5, grain=0.3, shade=0.07)
_BUILT: Final = Texture(plots=0.5, stands=0.3, grain=1.1, shade=0.12, hedges=0.1, snow=0.7)
_BARE: Final = Texture(stands=0.5, grain=0.3, shade=0.1)
_WET: Final = Texture(stands=0.5, grain=0.3, shade=0.06, road=0)
_WATER: Final = Texture(stands=0.1, shade=0.02, road=0)

SURFACES: Final[dict[str, tuple[Texture, dict[str, float]]]] = {
    "Continuous urban fabric": (_BUILT, {"tiles": 0.55, "asphalt": 0.35, "leaves": 0.1}),
    "Discontinuous urban fabric": (_BUILT, {"tiles": 0.3, "asphalt": 0.2, "grass": 0.25, "leaves": 0.25}),
    "Industrial or commercial units": (_BUILT, {"concrete": 0.5, "asphalt": 0.4, "grass": 0.1}),
    "Road and rail networks and associated land": (_BUILT, {"asphalt": 0.7, "grass": 0.2, "soil": 0.1}),
    "Port areas": (_BUILT, {"concrete": 0.4, "asphalt": 0.4, "sea": 0.2}),
    "Airports": (_MEADOWS, {"asphalt": 0.35, "grass": 0.65}),
    "Mineral extraction sites": (_BARE, {"rock": 0.7, "sand": 0.3}),
    "Dump sites": (_BARE, {"soil": 0.6, "concrete": 0.15, "straw": 0.25}),
    "Construction sites": (_BARE, {"soil": 0.7, "concrete": 0.3}),
    "Green urban areas": (_MOSAIC, {"grass": 0.55, "leaves": 0.45}),
    "Sport and leisure facilities": (_PLOTS, {"grass": 0.75, "leaves": 0.15, "soil": 0.1}),
    "Non-irrigated arable land": (_FIELDS, {"crops": 0.55, "soil": 0.3, "straw": 0.15}),
    "Permanently irrigated land": (_FIELDS, {"crops": 0.75, "soil": 0.25}),
    "Rice fields": (_FIELDS, {"crops": 0.5, "silt": 0.4, "soil": 0.1}),
    "Vineyards": (_ROWS, {"soil": 0.5, "crops": 0.3, "maquis": 0.2}),
    "Fruit trees and berry plantations": (_ROWS, {"leaves": 0.45, "grass": 0.3, "soil": 0.25}),
    "Olive groves": (_ROWS, {"oaks": 0.35, "soil": 0.45, "straw": 0.2}),
    "Pastures": (_MEADOWS, {"grass": 0.9, "straw": 0.1}),
    "Annual crops associated with permanent crops": (_ROWS, {"crops": 0.35, "oaks": 0.35, "soil": 0.3}),
    "Complex cultivation patterns": (
        _PLOTS,
        {"crops": 0.35, "grass": 0.25, "soil": 0.25, "leaves": 0.1, "tiles": 0.05},
    ),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (
        Texture(plots=0.8, stands=0.8, grain=0.4, shade=0.1, hedges=0.5),
        {"crops": 0.25, "grass": 0.25, "leaves": 0.3, "heath": 0.2},
    ),
    "Agro-forestry areas": (_MOSAIC, {"oaks": 0.4, "straw": 0.35, "grass": 0.25}),
    "Broad-leaved forest": (_CANOPY, {"leaves": 0.95, "grass": 0.05}),
    "Coniferous forest": (_CANOPY, {"needles": 0.95, "heath": 0.05}),
    "Mixed forest": (_CANOPY, {"leaves": 0.5, "needles": 0.5}),
    "Natural grassland": (_OPEN, {"grass": 0.4, "straw": 0.45, "rock": 0.15}),
    "Moors and heathland": (_OPEN, {"heath": 0.9, "grass": 0.1}),
    "Sclerophyllous vegetation": (_OPEN, {"maquis": 0.85, "soil": 0.15}),
    "Transitional woodland/shrub": (_MOSAIC, {"leaves": 0.3, "needles": 0.2, "grass": 0.25, "heath": 0.25}),
    "Beaches, dunes, sands": (_BARE, {"sand": 0.95, "straw": 0.05}),
    "Bare rock": (_BARE, {"rock": 1}),
    "Sparsely vegetated areas": (_BARE, {"rock": 0.55, "straw": 0.3, "grass": 0.15}),
    "Burnt areas": (_OPEN, {"ash": 0.85, "heath": 0.15}),
    "Inland marshes": (_WET, {"reeds": 0.75, "lake": 0.25}),
    "Peatbogs": (_WET, {"peat": 0.9, "lake": 0.03, "needles": 0.07}),
    "Salt marshes": (_WET, {"reeds": 0.45, "mud": 0.4, "grass": 0.15}),
    "Salines": (_PLOTS, {"brine": 0.6, "mud": 0.4}),
    "Intertidal flats": (_WET, {"mud": 0.8, "sea": 0.2}),
    "Water courses": (_WATER, {"lake": 0.4, "silt": 0.6}),
    "Water bodies": (_WATER, {"lake": 1}),
    "Coastal lagoons": (_WATER, {"sea": 0.65, "silt": 0.35}),
    "Estuaries": (_WATER, {"sea": 0.45, "silt": 0.55}),
    "Sea and ocean": (_WATER, {"sea": 1}),
}
"""Texture of each class, and the share of each material on average over its ground."""
