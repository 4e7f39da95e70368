"""The frozen records that the stages of a conversion hand to one another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, get_args

from converter.errors import PlanError

Sensor = Literal["s2", "s1", "map"]
"""What a file was made from: Sentinel-2, Sentinel-1, or the CORINE reference map."""

Dataset = Literal["v1", "v2"]
"""BigEarthNet v1.0 (2019) or v2.0, also called reBEN (2024)."""

Codec = Literal["lz4", "zstd", "none"]
"""How the pixels inside a shard are compressed; every choice is lossless."""

IMAGES: Final = "images.zarr"
"""The Zarr group inside a store."""
TABLE: Final = "patches.parquet"
"""The GeoParquet table inside a store; a store is finished if and only if it is there."""
REJECTS: Final = "rejected.parquet"
"""The list of patches left out of a store, if any were."""
CROISSANT: Final = "croissant.json"
"""The description of a store for catalogues and data loaders."""
PROGRESS: Final = ".progress"
"""Folder inside an unfinished store that holds lock, plan and receipts; removed at the end."""

CODECS: Final[tuple[Codec, ...]] = get_args(Codec)


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
    axes: str
    """Suffix of the dimension names `y_*` and `x_*`."""
    band_axis: str | None
    """Name of the band dimension; None for a single band without one."""

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Shape of one patch in memory, (band, row, col)."""
        return (len(self.bands), self.size, self.size)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the array's dimensions after `patch`."""
        plane = (f"y_{self.axes}", f"x_{self.axes}")
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

    def shard_path(self, shard: int) -> str:
        """Name the object of a shard, relative to the store: Zarr's default chunk key."""
        return f"{IMAGES}/{self.name}/c/{shard}{'/0' * len(self.dimensions)}"


@dataclass(frozen=True)
class Sources:
    """The folders of an archive, in any combination that has pixels."""

    s2: Path | None = None
    """Sentinel-2: `BigEarthNet-v1.0`, `BigEarthNet-S2`."""
    s1: Path | None = None
    """Sentinel-1: `BigEarthNet-S1-v1.0`, `BigEarthNet-S1`."""
    reference_maps: Path | None = None
    """`Reference_Maps` (v2.0)."""

    def __post_init__(self) -> None:
        if self.s2 is None and self.s1 is None:
            raise PlanError("expected an archive of Sentinel-2 or Sentinel-1 patches, found none")

    @property
    def roots(self) -> dict[Sensor, Path]:
        """The absolute path of each folder that was given."""
        given: dict[Sensor, Path | None] = {"s2": self.s2, "s1": self.s1, "map": self.reference_maps}
        return {sensor: path.absolute() for sensor, path in given.items() if path is not None}


@dataclass(frozen=True, slots=True)
class Source:
    """Where the files of a patch lie; all that a task must know of it."""

    patch_id: str
    """Name of the Sentinel-2 patch, never rewritten."""
    s1_name: str | None = None
    """Name of the paired Sentinel-1 patch."""
    s2: str | None = None
    """Its folder below the Sentinel-2 archive, with forward slashes; None if it is not there."""
    s1: str | None = None
    """Its folder below the Sentinel-1 archive."""
    map: str | None = None
    """Its folder below the reference maps."""


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch of the archive, with what the official lists or metadata say of it."""

    source: Source
    split: str | None = None
    """Official split; None where no list names the patch."""
    recommended: bool = False
    """In a split, free of snow, cloud and shadow, and with a 19-class label."""
    country: str | None = None
    season: str | None = None
    contains_seasonal_snow: bool = False
    contains_cloud_or_shadow: bool = False
    labels: tuple[str, ...] | None = None
    """Labels, where the metadata and not the patch's own JSON gives them (v2.0)."""
    s2v1_name: str | None = None
    """Name of the same patch in v1.0 (v2.0)."""

    @property
    def patch_id(self) -> str:
        """Name of the Sentinel-2 patch."""
        return self.source.patch_id


@dataclass(frozen=True)
class Layout:
    """What every shard of one store has in common."""

    dataset: Dataset
    groups: tuple[BandGroup, ...]
    codec: Codec
    shard_size: int
    """Patches in a full shard."""

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise PlanError(f"codec must be one of {', '.join(CODECS)}, not {self.codec!r}")
        if not 1 <= self.shard_size <= 65_536:
            raise PlanError(f"shard size must be between 1 and 65,536 patches, not {self.shard_size:,}")

    @property
    def patch_bytes(self) -> int:
        """Bytes of one patch over all arrays, before compression."""
        return sum(group.patch_bytes for group in self.groups)

    @property
    def bands(self) -> tuple[str, ...]:
        """Every band that is stored, in the order of the arrays."""
        return tuple(band for group in self.groups for band in group.bands)

    @property
    def sensors(self) -> frozenset[Sensor]:
        """Sensors of which anything is stored."""
        return frozenset(group.sensor for group in self.groups)


@dataclass(frozen=True)
class ShardTask:
    """One unit of work: the same shard of every array, and one receipt."""

    shard: int
    """Position along the patch axis of the shard grid."""
    sources: tuple[Source, ...]
    """The shard's patches in store order; all but the last shard are full."""
    n_train: int
    """Leading patches that are recommended training rows, over which statistics are taken."""
    digest: str
    """Hash of everything that decides the shard's bytes except the pixels; a receipt must repeat it."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What the JSON of a v1.0 patch says, of either sensor."""

    labels: tuple[str, ...]
    """43-class names as the source lists them."""
    epsg: int
    x_ul: float
    """Easting of the upper-left corner in metres."""
    y_ul: float
    """Northing of the upper-left corner in metres."""
    time: str
    """Sensing time in UTC, `YYYY-MM-DD HH:MM:SS`."""
    tile: str | None
    """MGRS tile of the source product, such as `33UUP` (Sentinel-2)."""
    partner: str | None
    """The Sentinel-2 patch that a Sentinel-1 patch is paired with."""


@dataclass(frozen=True, slots=True)
class PatchFacts:
    """What reading a patch taught: a row of the table, less what the lists know."""

    labels: tuple[str, ...] | None
    """Labels of the patch's own JSON; None where the metadata has them (v2.0)."""
    epsg: int
    x_ul: float
    y_ul: float
    s2_time: str | None
    """Sensing time in UTC, `YYYY-MM-DD HH:MM:SS`; None where the sensor was not converted."""
    s1_time: str | None
    tile: str | None
    zero_pixels: int | None
    """Pixels of the Sentinel-2 10 m bands that are zero, summed over bands; None without such bands."""
    has_s1: bool
    """The patch has Sentinel-1 pixels; if not, they are NaN."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A patch that could not be converted, and why."""

    patch_id: str
    file: str
    reason: str
