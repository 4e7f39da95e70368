"""Statistics of each band over the training pixels: exact sums, merged shard by shard."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BandStatistics:
    """Sums over the pixels of one band; integers stay integers, so uint16 bands are exact in any order."""

    count: int = 0
    total: int = 0
    total_of_squares: int = 0
    minimum: int | None = None
    maximum: int | None = None

    def __add__(self, other: BandStatistics) -> BandStatistics:
        """Merge the statistics of two disjoint sets of pixels."""
        return BandStatistics(
            self.count + other.count,
            self.total + other.total,
            self.total_of_squares + other.total_of_squares,
            min((x for x in (self.minimum, other.minimum) if x is not None), default=None),
            max((x for x in (self.maximum, other.maximum) if x is not None), default=None),
        )

    @property
    def mean(self) -> float | None:
        """Mean in stored units; None over no pixels."""
        return self.total / self.count if self.count else None

    @property
    def std(self) -> float | None:
        """Population standard deviation in stored units; None over no pixels."""
        if not self.count:
            return None
        return math.sqrt(self.count * self.total_of_squares - self.total**2) / self.count


def measure_bands(pixels: NDArray[np.uint16]) -> tuple[BandStatistics, ...]:
    """Measure one patch of a band group.

    Args:
        pixels: uint16 array (band, row, col).
    """
    bands = pixels.reshape(len(pixels), -1)
    # 65,535 squared still fits uint32; its sums need uint64.
    squares = bands.astype(np.uint32)
    squares *= squares
    return tuple(
        BandStatistics(bands.shape[1], *values)
        for values in zip(
            np.add.reduce(bands, axis=1, dtype=np.uint64).tolist(),
            np.add.reduce(squares, axis=1, dtype=np.uint64).tolist(),
            np.minimum.reduce(bands, axis=1).tolist(),
            np.maximum.reduce(bands, axis=1).tolist(),
            strict=True,
        )
    )


def merge_statistics(parts: Iterable[tuple[BandStatistics, ...]], n_bands: int) -> tuple[BandStatistics, ...]:
    """Merge the statistics of many patches or shards, band by band."""
    merged = (BandStatistics(),) * n_bands
    for part in parts:
        merged = tuple(a + b for a, b in zip(merged, part, strict=True))
    return merged
