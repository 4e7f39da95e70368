"""The 43 classes of BigEarthNet, the 19 that they become, and their CORINE codes and colours.

Source: Sumbul et al., "BigEarthNet-MM", IEEE GRSM 9(3), 2021 (https://doi.org/10.1109/MGRS.2021.3089174), whose Table 1
gives the 43 -> 19 nomenclature.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bigearthnet.errors import OptionError

_CORINE: Final[tuple[tuple[int, tuple[int, int, int], str, str | None], ...]] = (
    (111, (230, 0, 77), "Continuous urban fabric", "Urban fabric"),
    (112, (255, 0, 0), "Discontinuous urban fabric", "Urban fabric"),
    (121, (204, 77, 242), "Industrial or commercial units", "Industrial or commercial units"),
    (122, (204, 0, 0), "Road and rail networks and associated land", None),
    (123, (230, 204, 204), "Port areas", None),
    (124, (230, 204, 230), "Airports", None),
    (131, (166, 0, 204), "Mineral extraction sites", None),
    (132, (166, 77, 0), "Dump sites", None),
    (133, (255, 77, 255), "Construction sites", None),
    (141, (255, 166, 255), "Green urban areas", None),
    (142, (255, 230, 255), "Sport and leisure facilities", None),
    (211, (255, 255, 168), "Non-irrigated arable land", "Arable land"),
    (212, (255, 255, 0), "Permanently irrigated land", "Arable land"),
    (213, (230, 230, 0), "Rice fields", "Arable land"),
    (221, (230, 128, 0), "Vineyards", "Permanent crops"),
    (222, (242, 166, 77), "Fruit trees and berry plantations", "Permanent crops"),
    (223, (230, 166, 0), "Olive groves", "Permanent crops"),
    (231, (230, 230, 77), "Pastures", "Pastures"),
    (241, (255, 230, 166), "Annual crops associated with permanent crops", "Permanent crops"),
    (242, (255, 230, 77), "Complex cultivation patterns", "Complex cultivation patterns"),
    (
        243,
        (230, 204, 77),
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
    ),
    (244, (242, 204, 166), "Agro-forestry areas", "Agro-forestry areas"),
    (311, (128, 255, 0), "Broad-leaved forest", "Broad-leaved forest"),
    (312, (0, 166, 0), "Coniferous forest", "Coniferous forest"),
    (313, (77, 255, 0), "Mixed forest", "Mixed forest"),
    (321, (204, 242, 77), "Natural grassland", "Natural grassland and sparsely vegetated areas"),
    (322, (166, 255, 128), "Moors and heathland", "Moors, heathland and sclerophyllous vegetation"),
    (323, (166, 230, 77), "Sclerophyllous vegetation", "Moors, heathland and sclerophyllous vegetation"),
    (324, (166, 242, 0), "Transitional woodland/shrub", "Transitional woodland, shrub"),
    (331, (230, 230, 230), "Beaches, dunes, sands", "Beaches, dunes, sands"),
    (332, (204, 204, 204), "Bare rock", None),
    (333, (204, 255, 204), "Sparsely vegetated areas", "Natural grassland and sparsely vegetated areas"),
    (334, (0, 0, 0), "Burnt areas", None),
    (411, (166, 166, 255), "Inland marshes", "Inland wetlands"),
    (412, (77, 77, 255), "Peatbogs", "Inland wetlands"),
    (421, (204, 204, 255), "Salt marshes", "Coastal wetlands"),
    (422, (230, 230, 255), "Salines", "Coastal wetlands"),
    (423, (166, 166, 230), "Intertidal flats", None),
    (511, (0, 204, 242), "Water courses", "Inland waters"),
    (512, (128, 242, 230), "Water bodies", "Inland waters"),
    (521, (0, 255, 166), "Coastal lagoons", "Marine waters"),
    (522, (166, 255, 230), "Estuaries", "Marine waters"),
    (523, (230, 242, 255), "Sea and ocean", "Marine waters"),
)
"""CORINE Land Cover level-3 code, its official colour, its name in the 43-class nomenclature, and in the 19-class one.

Source of the colours, red, green and blue: the legend of the European Environment Agency (`clc_legend.csv`, the column
RGB), which comes with every raster, https://land.copernicus.eu/en/products/corine-land-cover.
"""

CORINE_CODES: Final = {name: code for code, _, name, _ in _CORINE}
"""CORINE level-3 code of each of the 43 classes, as the reference maps have it."""

CORINE_COLOURS: Final = {code: colour for code, colour, _, _ in _CORINE} | {335: (166, 230, 204)}
"""Red, green and blue of each CORINE code; 335, glaciers, is no class, since it does not occur in BigEarthNet."""

LABELS_43: Final = tuple(name for _, _, name, _ in _CORINE)
"""The 43 class names in CORINE order."""

LABELS_19: Final = tuple(dict.fromkeys(name for *_, name in _CORINE if name is not None))
"""The 19 class names, in the order of the first CORINE class that each stands for."""

LABEL_19_OF_43: Final = {name: name_19 for *_, name, name_19 in _CORINE}
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


def split_names(text: str) -> tuple[str, ...]:
    """Split names of classes that are joined by semicolons: names have commas.

    Raises:
        OptionError: A name is there twice.
    """
    names = tuple(name.strip() for name in text.split(";") if name.strip())
    if len(set(names)) < len(names):
        raise OptionError(f"expected each class once, found {text!r}")
    return names
