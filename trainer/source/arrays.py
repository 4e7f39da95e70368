"""The frozen records that describe a store to those who read it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, get_args

import numpy as np

Chain = Literal["raw", "blosc", "other"]
"""How an array is encoded: as the converter does it, without or with compression, or in another legal way."""

Check = Literal["first", "always", "never"]
"""When the crc32c of a chunk is compared: the first time since its shard was opened, every time, not at all."""

CHECKS: Final[tuple[Check, ...]] = get_args(Check)


@dataclass(frozen=True)
class ArrayInfo:
    """One array of a store: the bands that share a pixel size."""

    name: str
    """Name of the array."""
    key: str
    """Where it lies in the store."""
    bands: tuple[str, ...]
    """Band names, in the order of the band axis."""
    n_patches: int
    has_band_axis: bool
    """False if the array is (patch, row, col) with one band; a batch has the axis all the same."""
    n_rows: int
    """Pixel rows of a patch."""
    n_columns: int
    """Pixel columns of a patch."""
    dtype: str
    """NumPy name of the stored type."""
    shard_size: int
    """Patches in a full shard."""
    chain: Chain
    """Decides which path reads it."""

    def shard_key(self, number: int) -> str:
        """Name the object of a shard: Zarr's default chunk key."""
        return f"{self.key}/c/{number}{'/0' * (3 if self.has_band_axis else 2)}"

    @cached_property
    def plane_bytes(self) -> int:
        """Bytes of one band of one patch."""
        return self.n_rows * self.n_columns * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class BandStatistics:
    """Statistics of one band over the recommended training patches, in stored units."""

    mean: float
    std: float
    """Population standard deviation."""
    min: float
    max: float
    count: int
    """Pixels."""
