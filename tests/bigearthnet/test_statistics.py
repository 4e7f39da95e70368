"""Sums, means and deviations, against numpy."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bigearthnet.bands import S2_10M
from bigearthnet.store.statistics import BandStatistics, BandSums, merge_statistics


def measure_bands(*patches: NDArray[Any]) -> tuple[BandStatistics, ...]:
    """Measure patches of as many bands as the first has."""
    bands = tuple(f"band {number}" for number in range(len(patches[0])))
    sums = BandSums(replace(S2_10M, bands=bands, dtype=str(patches[0].dtype)))
    for pixels in patches:
        sums.add(pixels)
    return sums.to_statistics()


UINT16 = hnp.arrays(np.uint16, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6))


@given(UINT16)
def test_integers_are_summed_exactly(pixels: NDArray[np.uint16]) -> None:
    measured = measure_bands(pixels)
    assert len(measured) == len(pixels)
    for band, found in zip(pixels, measured, strict=True):
        values = [int(value) for value in band.ravel()]
        assert found == BandStatistics(
            len(values), sum(values), sum(value**2 for value in values), min(values), max(values)
        )
        assert all(isinstance(x, int) for x in (found.count, found.total, found.total_of_squares, found.minimum))
        assert found.mean == pytest.approx(band.mean(dtype=np.float64), rel=1e-13)
        mean = Fraction(sum(values), len(values))
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        assert found.std == pytest.approx(float(variance) ** 0.5, rel=1e-12)


def test_the_largest_values_overflow_nothing() -> None:
    (found,) = measure_bands(np.full((1, 120, 120), 65_535, np.uint16))
    assert found == BandStatistics(14_400, 14_400 * 65_535, 14_400 * 65_535**2, 65_535, 65_535)
    assert (found.mean, found.std) == (65_535.0, 0.0)
    whole = merge_statistics([(found,)] * 269_695)
    assert whole[0].total_of_squares == 269_695 * 14_400 * 65_535**2
    assert (whole[0].mean, whole[0].std) == (65_535.0, 0.0)


def test_a_tiny_deviation_at_a_large_mean_is_not_lost() -> None:
    pixels = np.full((1, 120, 120), 65_000, np.uint16)
    pixels[0, 0, 0] = 65_001
    parts = [measure_bands(pixels)] * 1_000
    (found,) = merge_statistics(parts)
    assert found.std == pytest.approx((1 / 14_400 * (1 - 1 / 14_400)) ** 0.5, rel=1e-9)


@given(st.lists(st.integers(0, 65_535), min_size=1, max_size=40), st.randoms())
def test_parts_merge_to_the_whole_in_any_order(values: list[int], random: object) -> None:
    parts = [measure_bands(np.array([[[value]]], np.uint16)) for value in values]
    random.shuffle(parts)  # type: ignore[attr-defined]
    (whole,) = measure_bands(np.array([[values]], np.uint16))
    assert merge_statistics(parts) == (whole,) == measure_bands(*(np.array([[[value]]], np.uint16) for value in values))


def test_a_full_shard_of_the_largest_size_overflows_nothing() -> None:
    """65,536 patches of 65,535 everywhere, as their sums; adding them one by one would take minutes."""
    pixels = np.full((1, 6_144, 6_144), 65_535, np.uint16)
    (found,) = measure_bands(*[pixels] * 2)
    assert found.total_of_squares == 2 * 6_144**2 * 65_535**2
    assert 65_536 * 14_400 * 65_535**2 < 2**64


def test_sums_go_on_after_they_were_told() -> None:
    sums = BandSums(replace(S2_10M, bands=("B02",)))
    for value, mean in ((10, 10.0), (20, 15.0), (0, 10.0)):
        sums.add(np.array([[[value]]], np.uint16))
        assert sums.to_statistics()[0].mean == mean
    assert (sums.to_statistics()[0].minimum, sums.to_statistics()[0].maximum) == (0, 20)


def test_each_band_is_measured_for_itself() -> None:
    pixels = np.array([[[1, 2]], [[10, 20]]], np.uint16)
    assert [found.mean for found in measure_bands(pixels)] == [1.5, 15.0]


def test_decibels_are_measured_in_double_precision() -> None:
    pixels = np.random.default_rng(0).normal(-15, 6, (2, 120, 120)).astype(np.float32)
    for band, found in zip(pixels, measure_bands(pixels), strict=True):
        assert found.count == band.size
        assert (found.minimum, found.maximum) == (band.min(), band.max())
        assert found.mean == pytest.approx(band.mean(dtype=np.float64), rel=1e-12)
        assert found.std == pytest.approx(band.std(dtype=np.float64), rel=1e-9)


def test_statistics_over_nothing_are_none() -> None:
    (found,) = BandSums(replace(S2_10M, bands=("B02",))).to_statistics()
    assert found == BandStatistics()
    assert (found.mean, found.std, found.minimum, found.maximum, found.count) == (None, None, None, None, 0)
    (measured,) = measure_bands(np.array([[[7]]], np.uint16))
    assert found + measured == measured + found == measured
