"""What BigEarthNet is called: versions, splits, patches, files, licence and papers.

Source: Sumbul et al., "BigEarthNet: A Large-Scale Benchmark Archive for Remote Sensing Image Understanding", IGARSS
2019 (https://doi.org/10.1109/IGARSS.2019.8900532).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal

from bigearthnet.bands import Sensor

Dataset = Literal["v1", "v2"]
"""BigEarthNet v1.0 (2019) or v2.0, also called reBEN (2024)."""

TITLES: Final[dict[Dataset, str]] = {"v1": "BigEarthNet v1.0", "v2": "BigEarthNet v2.0"}

N_PATCHES: Final[dict[Dataset, int]] = {"v1": 590_326, "v2": 549_488}
"""Patches in the complete archives."""

SPLITS: Final = ("train", "validation", "test")
"""Official splits, in the order in which the store holds them."""

SYNTHETIC_FILE: Final = "SYNTHETIC.txt"
"""A file of this name lies in folders that `ben-convert sample` made, and in no published archive."""
SYNTHETIC_MARK: Final = "SYNTHETIC"
SYNTHETIC_NOTE: Final = (
    "SYNTHETIC: labels and pixels of all patches, but for six at most, are made up. "
    "For trying things out, never for results."
)
"""What everything that is made from such folders says."""

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

_PLACE: Final = r"_(?P<column>\d{1,2})_(?P<row>\d{1,2})"
_FORMS: Final[tuple[tuple[Sensor, Dataset | None, str], ...]] = (
    ("s2", "v1", r"(?P<satellite>S2[AB])_MSIL2A_\d{8}T\d{5,6}"),
    ("s2", "v2", r"(?P<satellite>S2[AB])_MSIL2A_(?P<time>\d{8}T\d{6})_N\d{4}_R\d{3}_T(?P<tile>\d{2}[A-Z]{3})"),
    ("s1", None, r"(?P<satellite>S1[AB])_IW_GRDH_1SDV_(?P<time>\d{8}T\d{6})_(?P<tile>\d{2}[A-Z]{3})"),
)
"""What stands before the place. The time of v1.0 is unreliable (5 or 6 digits, seconds up to 61) and never parsed."""
_PATTERNS: Final = tuple((sensor, dataset, re.compile(form + _PLACE, re.ASCII)) for sensor, dataset, form in _FORMS)
"""Whole names; digits are those of ASCII alone."""


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
    for sensor, dataset, pattern in _PATTERNS:
        if match := pattern.fullmatch(name):
            parts = match.groupdict()
            time = parts.get("time")  # such as 20170613T101031
            return PatchName(
                sensor,
                dataset,
                parts["satellite"],
                int(parts["column"]),
                int(parts["row"]),
                parts.get("tile"),
                time and f"{time[:4]}-{time[4:6]}-{time[6:8]} {time[9:11]}:{time[11:13]}:{time[13:]}",
            )
    return None


def declared_nodata(dataset: Dataset, sensor: Sensor) -> float | None:
    """Return the nodata value that the published GeoTIFFs declare: 0 in v2.0 but for Sentinel-1, none in v1.0."""
    return 0 if dataset == "v2" and sensor != "s1" else None


def band_file(name: str, band: str) -> str:
    """Name the GeoTIFF of one band, or of the reference map, inside the folder of the patch `name`."""
    return f"{name}_{band}.tif"


def annotation_file(name: str) -> str:
    """Name the JSON of labels and metadata inside the folder of the v1.0 patch `name`."""
    return f"{name}_labels_metadata.json"


def suggest(words: Iterable[str], known: Iterable[str]) -> str:
    """Ask whether known names were meant that are spelt like unknown ones; an empty string if there are none."""
    names = {name.lower(): name for name in known}
    close = (get_close_matches(word.lower(), names, n=1) for word in words if word.lower() not in names)
    alike = dict.fromkeys(names[name] for found in close for name in found)
    return f" Did you mean {' or '.join(map(repr, alike))}?" if alike else ""
