"""What a store consists of: the names of its parts, its arrays, how they are cut into shards and compressed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from bigearthnet.bands import BandGroup, Sensor
from bigearthnet.errors import OptionError
from bigearthnet.names import Dataset

FORMAT_NAME: Final = "bigearthnet-store"
FORMAT_VERSION: Final = 2

Codec = Literal["lz4", "zstd", "none"]
"""How the pixels inside a shard are compressed; every choice is lossless."""

IMAGES: Final = "images.zarr"
"""The Zarr group inside a store."""
TABLE: Final = "patches.parquet"
"""The GeoParquet table inside a store."""
ORIGIN: Final = "origin_index"
"""One more column of the table of a store that is part of another: which row of the whole each was."""
REJECTS: Final = "rejected.parquet"
"""The list of patches left out of a store, if any were."""
CROISSANT: Final = "croissant.json"
"""The description of a store for catalogues and data loaders."""
MANIFEST: Final = "manifest.json"
"""The list of everything else in a store; a store is finished if and only if it is there."""
PROGRESS: Final = ".progress"
"""Folder inside an unfinished store that holds lock, plan and receipts; removed at the end."""
INGESTED: Final = "ingested.json"
"""File in it that says that all archive files have been read."""
RECEIPTS: Final = "receipts"
"""Folder in it with a receipt for each shard that is finished."""
SPILL: Final = "spill"
"""Folder in it where patches out of archive files wait for their shards."""

_LITTER: Final = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|\.nfs[0-9a-fA-F]+", re.DOTALL)
"""What macOS, Windows and NFS put into folders of their own accord."""

CODECS: Final[tuple[Codec, ...]] = get_args(Codec)


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
            raise OptionError(f"codec must be one of {', '.join(CODECS)}, not {self.codec!r}")
        if not 1 <= self.shard_size <= 65_536:
            raise OptionError(f"shard size must be between 1 and 65,536 patches, not {self.shard_size:,}")

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


def is_litter(name: str) -> bool:
    """Tell by its name a file that a desktop or a file system has left, which is never taken for part of a store."""
    return bool(_LITTER.fullmatch(name))


def name_shard(group: BandGroup, shard: int) -> str:
    """Name the object of a shard, relative to the store."""
    return name_object(f"{IMAGES}/{group.name}", len(group.dimensions), shard)


def name_object(array: str, n_dimensions: int, shard: int) -> str:
    """Name the object of a shard of an array of so many dimensions after `patch`: Zarr's default chunk key."""
    return f"{array}/c/{shard}{'/0' * n_dimensions}"
