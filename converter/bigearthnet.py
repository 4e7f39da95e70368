"""What BigEarthNet is: bands, sizes, labels, file names and counts. Known nowhere else.

Sources: Sumbul et al., "BigEarthNet: A Large-Scale Benchmark Archive for Remote Sensing Image
Understanding", IGARSS 2019 (https://doi.org/10.1109/IGARSS.2019.8900532), and Sumbul et al.,
"BigEarthNet-MM", IEEE GRSM 9(3), 2021 (https://doi.org/10.1109/MGRS.2021.3089174), whose Table 1
gives the 43 -> 19 nomenclature.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from converter.errors import PlanError
from converter.model import BandGroup, Dataset, Sensor

TITLES: Final[dict[Dataset, str]] = {"v1": "BigEarthNet v1.0", "v2": "BigEarthNet v2.0"}

N_PATCHES: Final[dict[Dataset, int]] = {"v1": 590_326, "v2": 549_488}
"""Patches in the complete archives."""

S2_10M: Final = BandGroup("s2_10m", "s2", ("B02", "B03", "B04", "B08"), 120, 10, "uint16", "10m", "band_10m")
S2_20M: Final = BandGroup(
    "s2_20m", "s2", ("B05", "B06", "B07", "B8A", "B11", "B12"), 60, 20, "uint16", "20m", "band_20m"
)
S2_60M: Final = BandGroup("s2_60m", "s2", ("B01", "B09"), 20, 60, "uint16", "60m", "band_60m")
S2_GROUPS: Final = (S2_10M, S2_20M, S2_60M)
"""Sentinel-2 L2A. B10 does not exist in these products."""

S1_10M: Final = BandGroup("s1_10m", "s1", ("VV", "VH"), 120, 10, "float32", "10m", "band_s1")
REFERENCE_MAP: Final = BandGroup("reference_map", "map", ("reference_map",), 120, 10, "uint16", "10m", None)

GROUPS: Final = (*S2_GROUPS, S1_10M, REFERENCE_MAP)
"""Everything BigEarthNet publishes, at its native resolutions."""

BAND_SETS: Final = {
    "rgb": ("B04", "B03", "B02"),
    "rgbn": ("B04", "B03", "B02", "B08"),
    "10m": S2_10M.bands,
    "20m": S2_20M.bands,
    "60m": S2_60M.bands,
    "s2": (*S2_10M.bands, *S2_20M.bands, *S2_60M.bands),
    "s1": S1_10M.bands,
    "all": (*S2_10M.bands, *S2_20M.bands, *S2_60M.bands, *S1_10M.bands),
}
"""Names for sets of bands."""

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

CORINE_CODES: Final = {name: code for code, name, _ in _CORINE}
"""CORINE level-3 code of each of the 43 classes, as the reference maps have it."""

LABELS_43: Final = tuple(name for _, name, _ in _CORINE)
"""The 43 class names in CORINE order."""

LABELS_19: Final = tuple(dict.fromkeys(name for _, _, name in _CORINE if name is not None))
"""The 19 class names, in the order of the first CORINE class that each stands for."""

LABEL_19_OF_43: Final = {name: name_19 for _, name, name_19 in _CORINE}
"""The 19-class name of each of the 43; None for the 11 that have none."""

SPLITS: Final = ("train", "validation", "test")
"""Official splits, in the order in which the store holds them."""

LICENSE: Final = "CDLA-Permissive-1.0"

CITATIONS: Final[dict[Dataset, str]] = {
    "v1": (
        "G. Sumbul, M. Charfuelan, B. Demir, V. Markl, BigEarthNet: A Large-Scale Benchmark Archive for "
        "Remote Sensing Image Understanding, IGARSS 2019, doi:10.1109/IGARSS.2019.8900532"
    ),
    "v2": (
        "K. N. Clasen, L. Hackel, T. Burgert, G. Sumbul, B. Demir, V. Markl, reBEN: Refined BigEarthNet Dataset for "
        "Remote Sensing Image Analysis, 2024, arXiv:2407.03653"
    ),
}

_S2_V1: Final = re.compile(r"(?P<satellite>S2[AB])_MSIL2A_\d{8}T\d{5,6}_(?P<column>\d{1,2})_(?P<row>\d{1,2})")
"""The time in a v1.0 name is unreliable (5 or 6 digits, seconds up to 61): it is never parsed."""

_S2_V2: Final = re.compile(
    r"(?P<satellite>S2[AB])_MSIL2A_(?P<time>\d{8}T\d{6})_N\d{4}_R\d{3}_T(?P<tile>\d{2}[A-Z]{3})"
    r"_(?P<column>\d{1,2})_(?P<row>\d{1,2})"
)
_S1: Final = re.compile(
    r"(?P<satellite>S1[AB])_IW_GRDH_1SDV_(?P<time>\d{8}T\d{6})_(?P<tile>\d{2}[A-Z]{3})"
    r"_(?P<column>\d{1,2})_(?P<row>\d{1,2})"
)


@dataclass(frozen=True, slots=True)
class PatchName:
    """What the name of a patch tells reliably."""

    sensor: Sensor
    dataset: Dataset | None
    """None for Sentinel-1, whose names are the same in both."""
    satellite: str
    column: int
    """Position in the tile, counted in patches from the west."""
    row: int
    """Position in the tile, counted in patches from the north."""
    tile: str | None
    """MGRS tile; None in a v1.0 Sentinel-2 name."""
    time: str | None
    """Start of sensing in UTC, `YYYY-MM-DD HH:MM:SS`; None in a v1.0 Sentinel-2 name."""


def parse_patch_name(name: str) -> PatchName | None:
    """Parse the name of a patch folder; None if it is not one."""
    forms: tuple[tuple[re.Pattern[str], Sensor, Dataset | None], ...]
    forms = ((_S2_V1, "s2", "v1"), (_S2_V2, "s2", "v2"), (_S1, "s1", None))
    for pattern, sensor, dataset in forms:
        if found := pattern.fullmatch(name):
            parts = found.groupdict()
            time = parts.get("time")
            return PatchName(
                sensor,
                dataset,
                parts["satellite"],
                int(parts["column"]),
                int(parts["row"]),
                parts.get("tile"),
                None if time is None else _format_time(time),
            )
    return None


def _format_time(time: str) -> str:
    day, clock = time[:8], time[9:]
    return f"{day[:4]}-{day[4:6]}-{day[6:]} {clock[:2]}:{clock[2:4]}:{clock[4:]}"


def choose_groups(bands: Iterable[str], *, reference_map: bool = False) -> tuple[BandGroup, ...]:
    """Choose what to store.

    Args:
        bands: Names of bands and of `BAND_SETS`, in any order; the order inside an array is always the native one.
        reference_map: Store the reference map too.

    Raises:
        PlanError: A name is unknown, or there are none.
    """
    wanted = {REFERENCE_MAP.name} if reference_map else set()
    for name in bands:
        chosen = BAND_SETS.get(name.lower(), (name.upper(),))
        if not set(chosen) <= set(BAND_SETS["all"]):
            raise PlanError(
                f"expected bands of {', '.join(BAND_SETS['all'])} or sets of {', '.join(BAND_SETS)}, found {name!r}"
            )
        wanted.update(chosen)
    kept = ((group, tuple(band for band in group.bands if band in wanted)) for group in GROUPS)
    groups = tuple(replace(group, bands=stored) for group, stored in kept if stored)
    if not groups:
        raise PlanError("expected at least one band, found none")
    return groups


def to_labels_19(labels: Iterable[str]) -> tuple[str, ...]:
    """Translate class names into the 19-class nomenclature.

    Args:
        labels: Names from `LABELS_43` or from `LABELS_19`, in any order.

    Returns:
        Names from `LABELS_19`, in that order, without repeats; empty if no class has a 19-class form.
    """
    found = {LABEL_19_OF_43.get(label, label) for label in labels}
    return tuple(label for label in LABELS_19 if label in found)


def declared_nodata(dataset: Dataset, sensor: Sensor) -> float | None:
    """Return the nodata value that the published GeoTIFFs declare: 0 in v2.0 but for Sentinel-1, none in v1.0."""
    return 0 if dataset == "v2" and sensor != "s1" else None


def band_file(name: str, band: str) -> str:
    """Name the GeoTIFF of one band, or of the reference map, inside the folder of the patch `name`."""
    return f"{name}_{band}.tif"


def annotation_file(name: str) -> str:
    """Name the JSON of labels and metadata inside the folder of the v1.0 patch `name`."""
    return f"{name}_labels_metadata.json"
