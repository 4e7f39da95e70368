"""The bands of BigEarthNet: names, sets of names, pixel sizes, and the arrays that they make."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

from bigearthnet.errors import OptionError

Sensor = Literal["s2", "s1", "map"]
"""What a file was made from: Sentinel-2, Sentinel-1, or the CORINE reference map."""

SENSORS: Final[dict[Sensor, str]] = {"s2": "Sentinel-2", "s1": "Sentinel-1", "map": "reference maps"}
"""What each is called."""


@dataclass(frozen=True)
class BandGroup:
    """The bands of one sensor that share a pixel size: one array of the store."""

    name: str
    """Name of the array."""
    sensor: Sensor
    bands: tuple[str, ...]
    """Band names, in the order of the array's band axis."""
    size: int
    """Rows, and columns, of one patch."""
    pixel_m: int
    """Side of a pixel in metres."""
    dtype: str
    """NumPy name of the stored type; pixels are never cast."""
    band_axis: str | None
    """Name of the band dimension; None for a single band without one."""

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Shape of one patch in memory, (band, row, col)."""
        return (len(self.bands), self.size, self.size)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the array's dimensions after `patch`."""
        plane = (f"y_{self.pixel_m}m", f"x_{self.pixel_m}m")
        return plane if self.band_axis is None else (self.band_axis, *plane)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Lengths of the array's dimensions after `patch`."""
        return self.patch_shape[-len(self.dimensions) :]

    @cached_property
    def itemsize(self) -> int:
        """Bytes of one pixel of one band."""
        return {"uint16": 2, "float32": 4}[self.dtype]

    @cached_property
    def plane_bytes(self) -> int:
        """Bytes of one band of one patch."""
        return self.size * self.size * self.itemsize

    @cached_property
    def patch_bytes(self) -> int:
        """Bytes of one patch before compression."""
        return len(self.bands) * self.plane_bytes

    def has_statistics(self, *, has_s1: bool) -> bool:
        """Tell whether a training patch counts in the statistics: class codes and missing Sentinel-1 pixels do not."""
        return self.sensor == "s2" or (self.sensor == "s1" and has_s1)


S2_10M: Final = BandGroup("s2_10m", "s2", ("B02", "B03", "B04", "B08"), 120, 10, "uint16", "band_10m")
S2_20M: Final = BandGroup("s2_20m", "s2", ("B05", "B06", "B07", "B8A", "B11", "B12"), 60, 20, "uint16", "band_20m")
S2_60M: Final = BandGroup("s2_60m", "s2", ("B01", "B09"), 20, 60, "uint16", "band_60m")
S2_GROUPS: Final = (S2_10M, S2_20M, S2_60M)
"""Sentinel-2 L2A. B10 does not exist in these products."""

S1_10M: Final = BandGroup("s1_10m", "s1", ("VV", "VH"), 120, 10, "float32", "band_s1")
REFERENCE_MAP: Final = BandGroup("reference_map", "map", ("reference_map",), 120, 10, "uint16", None)

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
    **{group.name: group.bands for group in GROUPS},
}
"""Names for sets of bands; those of arrays are among them."""

PUBLISHED_BANDS: Final = tuple(band for group in GROUPS for band in group.bands)
"""Every band, array by array; the reference map counts as one, which no set but its own has."""

QUANTIFICATION_VALUE: Final = 10_000
"""Surface reflectance = stored integer / 10,000 (Sentinel-2 Products Specification, L2A)."""

PATCH_M: Final = 1_200
"""Side of a patch in metres: 120 pixels of 10 m."""


def find_sets(available: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Find the sets that some bands make: `rgb` and `rgbn` if they are whole, others of those bands that are there."""
    sets = {name: tuple(band for band in bands if band in available) for name, bands in BAND_SETS.items()}
    return {
        name: bands
        for name, bands in sets.items()
        if bands and (name not in ("rgb", "rgbn") or bands == BAND_SETS[name])
    }


def resolve_bands(asked: str | Iterable[str], available: Collection[str] = BAND_SETS["all"]) -> tuple[str, ...]:
    """Say which bands are meant.

    Args:
        asked: Names of bands and of `BAND_SETS`, in upper or lower case, joined by commas or plus signs or one by one.
        available: The bands that there are.

    Returns:
        Names of bands in the order asked for, repeated if they were.

    Raises:
        OptionError: A name is unknown, or there are none.
    """
    parts = [asked] if isinstance(asked, str) else asked
    names = [name.strip() for part in parts for name in part.replace("+", ",").split(",")]
    sets = find_sets(available)
    known = {band.lower(): (band,) for band in available} | sets
    unknown = [name for name in names if name.lower() not in known]
    if unknown or not names:
        raise OptionError(
            f"no band {', '.join(map(repr, unknown)) or 'given'}; "
            f"choose from {', '.join(available)}, or the sets {', '.join(sets)}"
        )
    return tuple(band for name in names for band in known[name.lower()])


def choose_groups(asked: str | Iterable[str], available: Collection[str] = BAND_SETS["all"]) -> tuple[BandGroup, ...]:
    """Choose the arrays that some bands make, as in `resolve_bands`; the order inside an array is the native one.

    Raises:
        OptionError: A name is unknown, or there are none.
    """
    wanted = resolve_bands(asked, available)
    kept = ((group, tuple(band for band in group.bands if band in wanted)) for group in GROUPS)
    return tuple(replace(group, bands=stored) for group, stored in kept if stored)
