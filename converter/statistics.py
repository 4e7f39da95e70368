"""Statistics of each band over the training pixels: exact sums, merged shard by shard."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BandStatistics:
    """Sums over the pixels of one band.

    Integers stay integers, so uint16 bands are exact; sums of float32 bands are float64, and the same from run to run
    because patches and shards are always added in store order.
    """

    count: int = 0
    total: float = 0
    total_of_squares: float = 0
    minimum: float | None = None
    maximum: float | None = None

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
        return math.sqrt(max(0, self.count * self.total_of_squares - self.total**2)) / self.count


def measure_bands(pixels: NDArray[np.generic]) -> tuple[BandStatistics, ...]:
    """Measure one patch of a band group.

    Args:
        pixels: uint16 or float32 array (band, row, col), without NaN.
    """
    bands = pixels.reshape(len(pixels), -1)
    # 65,535 squared still fits uint32; its sums need uint64.
    square_type, sum_type = (np.uint32, np.uint64) if bands.dtype == np.uint16 else (np.float64, np.float64)
    wide: NDArray[Any] = bands.astype(square_type)
    squares = np.multiply(wide, wide, out=wide)
    return tuple(
        BandStatistics(bands.shape[1], *values)
        for values in zip(
            np.add.reduce(bands, axis=1, dtype=sum_type).tolist(),
            np.add.reduce(squares, axis=1, dtype=sum_type).tolist(),
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
