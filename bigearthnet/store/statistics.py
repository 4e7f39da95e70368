"""Statistics of each band over the training pixels: exact sums, merged shard by shard."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bigearthnet.bands import BandGroup


@dataclass(frozen=True)
class BandSummary:
    """Statistics of one band, as the root attribute `statistics` of a store has them; None of no pixels."""

    mean: float | None
    """In stored units, like all the rest."""
    std: float | None
    """Population standard deviation."""
    min: float | None
    max: float | None
    count: int
    """Pixels."""

    def __post_init__(self) -> None:
        if self.count and None in (self.mean, self.std):
            raise ValueError(f"expected mean and standard deviation of {self.count:,} pixels, found {self}")


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

    def summarise(self) -> BandSummary:
        """Return what a store says of the band."""
        return BandSummary(self.mean, self.std, self.minimum, self.maximum, self.count)


class BandSums:
    """Sums over the pixels of the bands of one group, added patch by patch."""

    def __init__(self, group: BandGroup) -> None:
        n_bands = len(group.bands)
        self._n_pixels = 0
        # 65,535 squared still fits uint32; sums of up to 2**32 such squares fit uint64.
        integers = group.dtype == "uint16"
        self._square_type: DTypeLike = np.uint32 if integers else np.float64
        sum_type: DTypeLike = np.uint64 if integers else np.float64
        self._totals = np.zeros((2, n_bands), sum_type)
        self._bounds = np.zeros((2, n_bands), group.dtype)

    def add(self, pixels: NDArray[Any]) -> None:
        """Add one patch.

        Args:
            pixels: (band, row, col) array of the group's dtype, without NaN.
        """
        bands = pixels.reshape(len(pixels), -1)
        squares = bands.astype(self._square_type)
        np.multiply(squares, squares, out=squares)
        for totals, values in zip(self._totals, (bands, squares), strict=True):
            totals += np.add.reduce(values, axis=1, dtype=totals.dtype)
        for extreme, bounds in zip((np.minimum, np.maximum), self._bounds, strict=True):
            extremes = extreme.reduce(bands, axis=1)
            bounds[...] = extreme(bounds, extremes) if self._n_pixels else extremes
        self._n_pixels += bands.shape[1]

    def to_statistics(self) -> tuple[BandStatistics, ...]:
        """Return the statistics of each band over all patches added so far."""
        if not self._n_pixels:
            return (BandStatistics(),) * self._totals.shape[1]
        columns = zip(*self._totals.tolist(), *self._bounds.tolist(), strict=True)
        return tuple(BandStatistics(self._n_pixels, *values) for values in columns)


def merge_statistics(parts: Iterable[tuple[BandStatistics, ...]]) -> tuple[BandStatistics, ...]:
    """Merge the statistics of one or more shards, band by band, in the order given."""
    return reduce(lambda merged, part: tuple(a + b for a, b in zip(merged, part, strict=True)), parts)
