"""The 43 classes of BigEarthNet, the 19 that they become, and their CORINE codes.

Source: Sumbul et al., "BigEarthNet-MM", IEEE GRSM 9(3), 2021 (https://doi.org/10.1109/MGRS.2021.3089174), whose Table 1
gives the 43 -> 19 nomenclature.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

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

CORINE_CODES: Final = {name: code for code, name, _ in _CORINE}
"""CORINE level-3 code of each of the 43 classes, as the reference maps have it."""

LABELS_43: Final = tuple(name for _, name, _ in _CORINE)
"""The 43 class names in CORINE order."""

LABELS_19: Final = tuple(dict.fromkeys(name for _, _, name in _CORINE if name is not None))
"""The 19 class names, in the order of the first CORINE class that each stands for."""

LABEL_19_OF_43: Final = {name: name_19 for _, name, name_19 in _CORINE}
"""The 19-class name of each of the 43; None for the 11 that have none."""


def to_labels_19(labels: Iterable[str]) -> tuple[str, ...]:
    """Translate class names into the 19-class nomenclature.

    Args:
        labels: Names from `LABELS_43` or from `LABELS_19`, in any order.

    Returns:
        Names from `LABELS_19`, in that order, without repeats; empty if no class has a 19-class form.
    """
    translated = {LABEL_19_OF_43.get(label, label) for label in labels}
    return tuple(label for label in LABELS_19 if label in translated)
