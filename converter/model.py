"""The frozen records that the stages of a conversion hand to one another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, get_args

from converter.errors import PlanError

Codec = Literal["lz4", "zstd", "none"]
"""How the pixels inside a shard are compressed; every choice is lossless."""

IMAGES: Final = "images.zarr"
"""The Zarr group inside a store."""
TABLE: Final = "patches.parquet"
"""The GeoParquet table inside a store; a store is finished if and only if it is there."""
REJECTS: Final = "rejected.parquet"
"""The list of patches left out of a store, if any were."""
PROGRESS: Final = ".progress"
"""Folder inside an unfinished store that holds lock, plan and receipts; removed at the end."""

CODECS: Final[tuple[Codec, ...]] = get_args(Codec)


@dataclass(frozen=True)
class BandGroup:
    """The bands of one sensor that share a pixel size: one array of the store."""

    name: str
    """Name of the array."""
    bands: tuple[str, ...]
    """Band names, in the order of the array's band axis."""
    size: int
    """Rows, and columns, of one patch."""
    pixel_m: int
    """Side of a pixel in metres."""
    dtype: str
    """NumPy name of the stored type; pixels are never cast."""
    axes: str
    """Suffix of the dimension names `band_*`, `y_*` and `x_*`."""

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Shape of one patch as (band, row, col)."""
        return (len(self.bands), self.size, self.size)

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

    def shard_path(self, shard: int) -> str:
        """Name the object of a shard, relative to the store: Zarr's default chunk key."""
        return f"{IMAGES}/{self.name}/c/{shard}/0/0/0"


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch of the archive, with what the official lists say of it."""

    patch_id: str
    """Name of the patch folder, never rewritten."""
    folder: str
    """The patch folder, relative to the archive, with forward slashes."""
    split: str | None = None
    """Official split; None where no list names the patch."""
    recommended: bool = False
    """In a split, free of snow, cloud and shadow, and with a 19-class label."""
    country: str | None = None
    season: str | None = None
    s1_name: str | None = None
    """The paired Sentinel-1 patch."""
    contains_seasonal_snow: bool = False
    contains_cloud_or_shadow: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """What a task must know of a patch to read it."""

    patch_id: str
    folder: str


@dataclass(frozen=True)
class Layout:
    """What every shard of one store has in common."""

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
    """What the patch's own JSON says."""

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
    """MGRS tile of the source product, such as `33UUP`."""


@dataclass(frozen=True, slots=True)
class PatchFacts:
    """What reading a patch taught: a row of the table, less what the lists know."""

    annotation: Annotation
    zero_pixels: int
    """Pixels of the 10 m group that are zero, summed over its bands."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A patch that could not be converted, and why."""

    patch_id: str
    file: str
    reason: str
