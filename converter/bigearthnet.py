"""What BigEarthNet is: bands, sizes, labels, file names and counts. Known nowhere else.

Sources: Sumbul et al., "BigEarthNet: A Large-Scale Benchmark Archive for Remote Sensing Image
Understanding", IGARSS 2019 (https://doi.org/10.1109/IGARSS.2019.8900532), and Sumbul et al.,
"BigEarthNet-MM", IEEE GRSM 9(3), 2021 (https://doi.org/10.1109/MGRS.2021.3089174), whose Table 1
gives the 43 -> 19 nomenclature.
"""

from __future__ import annotations

import re
from typing import Final

from converter.model import BandGroup

DATASET_V1: Final = "BigEarthNet v1.0"

N_PATCHES_V1: Final = 590_326
"""Sentinel-2 patches in the complete v1.0 archive."""

S2_10M: Final = BandGroup("s2_10m", ("B02", "B03", "B04", "B08"), size=120, pixel_m=10, dtype="uint16", axes="10m")
S2_20M: Final = BandGroup(
    "s2_20m", ("B05", "B06", "B07", "B8A", "B11", "B12"), size=60, pixel_m=20, dtype="uint16", axes="20m"
)
S2_60M: Final = BandGroup("s2_60m", ("B01", "B09"), size=20, pixel_m=60, dtype="uint16", axes="60m")

S2_GROUPS: Final = (S2_10M, S2_20M, S2_60M)
"""Sentinel-2 L2A at its native resolutions. B10 does not exist in L2A products."""

QUANTIFICATION_VALUE: Final = 10_000
"""Surface reflectance = stored integer / 10,000 (Sentinel-2 Products Specification, L2A)."""

PATCH_M: Final = 1_200
"""Side of a patch in metres: 120 pixels of 10 m."""

_CORINE: Final[tuple[tuple[int, str, str | None], ...]] = (
    (111, "Continuous urban fabric", "Urban fabric"),
    (112, "Discontinuous urban fabric", "Urban fabric"),
    (121, "Industrial or commercial units", "Industrial or commercial units"),
    (122, "Road and rail networks and associated land", None),
    (123, "Port areas", None),
    (124, "Airports", None),
    (131, "Mineral extraction sites", None),
    (132, "Dump sites", None),
    (133, "Construction sites", None),
    (141, "Green urban areas", None),
    (142, "Sport and leisure facilities", None),
    (211, "Non-irrigated arable land", "Arable land"),
    (212, "Permanently irrigated land", "Arable land"),
    (213, "Rice fields", "Arable land"),
    (221, "Vineyards", "Permanent crops"),
    (222, "Fruit trees and berry plantations", "Permanent crops"),
    (223, "Olive groves", "Permanent crops"),
    (231, "Pastures", "Pastures"),
    (241, "Annual crops associated with permanent crops", "Permanent crops"),
    (242, "Complex cultivation patterns", "Complex cultivation patterns"),
    (
        243,
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
    ),
    (244, "Agro-forestry areas", "Agro-forestry areas"),
    (311, "Broad-leaved forest", "Broad-leaved forest"),
    (312, "Coniferous forest", "Coniferous forest"),
    (313, "Mixed forest", "Mixed forest"),
    (321, "Natural grassland", "Natural grassland and sparsely vegetated areas"),
    (322, "Moors and heathland", "Moors, heathland and sclerophyllous vegetation"),
    (323, "Sclerophyllous vegetation", "Moors, heathland and sclerophyllous vegetation"),
    (324, "Transitional woodland/shrub", "Transitional woodland, shrub"),
    (331, "Beaches, dunes, sands", "Beaches, dunes, sands"),
    (332, "Bare rock", None),
    (333, "Sparsely vegetated areas", "Natural grassland and sparsely vegetated areas"),
    (334, "Burnt areas", None),
    (411, "Inland marshes", "Inland wetlands"),
    (412, "Peatbogs", "Inland wetlands"),
    (421, "Salt marshes", "Coastal wetlands"),
    (422, "Salines", "Coastal wetlands"),
    (423, "Intertidal flats", None),
    (511, "Water courses", "Inland waters"),
    (512, "Water bodies", "Inland waters"),
    (521, "Coastal lagoons", "Marine waters"),
    (522, "Estuaries", "Marine waters"),
    (523, "Sea and ocean", "Marine waters"),
)
"""CORINE Land Cover 2018 level-3 code, its name in the 43-class nomenclature, and in the 19-class one."""

LABELS_43: Final = tuple(name for _, name, _ in _CORINE)
"""The 43 class names in CORINE order."""

LABELS_19: Final = tuple(dict.fromkeys(name for _, _, name in _CORINE if name is not None))
"""The 19 class names, in the order of the first CORINE class that each stands for."""

LABEL_19_OF_43: Final = {name: name_19 for _, name, name_19 in _CORINE}
"""The 19-class name of each of the 43; None for the 11 that have none."""

SPLITS: Final = ("train", "validation", "test")
"""Official splits, in the order in which the store holds them."""

LICENSE: Final = "CDLA-Permissive-1.0"

CITATION: Final = (
    "G. Sumbul, M. Charfuelan, B. Demir, V. Markl, BigEarthNet: A Large-Scale Benchmark Archive for "
    "Remote Sensing Image Understanding, IGARSS 2019, doi:10.1109/IGARSS.2019.8900532"
)

S2_PATCH_V1: Final = re.compile(
    r"(?P<satellite>S2[AB])_MSIL2A_(?P<sensed>\d{8}T\d{5,6})_(?P<column>\d{1,2})_(?P<row>\d{1,2})"
)
"""A v1.0 patch name. The sensing time is unreliable (5 or 6 digits, seconds up to 61): it is never parsed."""


def to_labels_19(labels_43: tuple[str, ...]) -> tuple[str, ...]:
    """Translate 43-class names into the 19-class nomenclature.

    Args:
        labels_43: Names from `LABELS_43`, in any order.

    Returns:
        Names from `LABELS_19`, in that order, without repeats; empty if no class has a 19-class form.
    """
    found = {LABEL_19_OF_43[label] for label in labels_43}
    return tuple(label for label in LABELS_19 if label in found)


def band_file(patch_id: str, band: str) -> str:
    """Name the GeoTIFF of one band inside its patch folder."""
    return f"{patch_id}_{band}.tif"


def annotation_file(patch_id: str) -> str:
    """Name the JSON of labels and metadata inside its patch folder (v1.0 only)."""
    return f"{patch_id}_labels_metadata.json"
