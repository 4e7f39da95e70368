"""What the pixels are like: histograms of each band over a bounded sample of patches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.bands import BandGroup
from bigearthnet.labels import CORINE_CODES
from bigearthnet.look.preview import OnAdvance
from bigearthnet.store.layout import Layout
from bigearthnet.store.query import open_table
from bigearthnet.store.shard import read_pixels

N_BINS: Final = 60
"""Bins of a histogram."""

_IS_TRAIN: Final = "recommended AND split = 'train'"

_TAILS: Final = (0.1, 99.9)
"""Percentiles between which a histogram is drawn: a few bright pixels would flatten all the rest."""


@dataclass(frozen=True)
class Sample:
    """Patches drawn by a hash of their names: the same again, whatever the machine."""

    indices: tuple[int, ...]
    n_candidates: int
    """Patches from which they were drawn."""
    is_train: bool
    """They are recommended training patches, over which the statistics were taken; if not, of any kind."""


@dataclass(frozen=True, eq=False)
class BandHistogram:
    """The values of one band in the sample."""

    band: str
    sensor: str
    first: float
    """Lower end of the first bin, in stored units."""
    last: float
    """Upper end of the last bin."""
    counts: NDArray[np.int64]
    """Pixels, shape (bin,)."""
    n_pixels: int
    """All pixels, those below the first and above the last bin included."""
    mean: float | None
    """As the store has it, over all training pixels; None if there are none."""
    std: float | None


@dataclass(frozen=True)
class Cover:
    """A class of the reference maps."""

    code: int
    name: str
    share: float
    """Of the pixels in the sample."""


@dataclass(frozen=True)
class PixelSurvey:
    """What a sample of patches holds."""

    sample: Sample
    histograms: tuple[BandHistogram, ...]
    cover: tuple[Cover, ...]
    """Most pixels first; empty without reference maps."""


def draw_sample(store: Path, n_patches: int, seed: int = 0) -> Sample:
    """Draw patches of a finished store: recommended training patches, or any where there are none.

    Raises:
        StoreError: There is no finished store.
    """
    with open_table(store) as connection:
        for condition in (_IS_TRAIN, "true"):
            drawn = connection.execute(
                f"SELECT index FROM patches WHERE {condition} ORDER BY md5(patch_id || $seed), index LIMIT $n",
                {"seed": str(seed), "n": n_patches},
            ).fetchall()
            if drawn:
                break
        ((n_candidates,),) = connection.execute(f"SELECT count(*) FROM patches WHERE {condition}").fetchall()
    return Sample(tuple(sorted(index for (index,) in drawn)), n_candidates, condition == _IS_TRAIN)


def survey_pixels(
    store: Path,
    layout: Layout,
    statistics: Mapping[str, Mapping[str, Any]],
    sample: Sample,
    advance: OnAdvance = lambda *_: None,
) -> PixelSurvey:
    """Read a sample of patches and count their values.

    Args:
        store: The store's folder.
        layout: Its arrays.
        statistics: `mean` and `std` of each band, from the root attributes.
        sample: Which patches.
        advance: Told of each patch; a patch counts once an array.

    Raises:
        StoreError: A chunk is damaged.
    """
    histograms: list[BandHistogram] = []
    cover: tuple[Cover, ...] = ()
    n_patches = len(sample.indices)
    for number, group in enumerate(layout.groups):
        pixels = np.empty((len(group.bands), n_patches, group.size, group.size), group.dtype)
        for position, index in enumerate(sample.indices):
            pixels[:, position] = read_pixels(store, layout, group, index)
            advance(number * n_patches + position + 1, len(layout.groups) * n_patches)
        if group.sensor == "map":
            cover = tuple(_count_cover(pixels[0]))
        else:
            histograms += _count_values(group, pixels, statistics)
    return PixelSurvey(sample, tuple(histograms), cover)


def _count_values(
    group: BandGroup, pixels: NDArray[Any], statistics: Mapping[str, Mapping[str, Any]]
) -> Iterator[BandHistogram]:
    for band, values in zip(group.bands, pixels.reshape(len(group.bands), -1), strict=True):
        known = values[np.isfinite(values)]
        if not known.size:
            continue
        first, last = _choose_ends(known, is_whole=group.dtype == "uint16")
        counts, _ = np.histogram(known, bins=N_BINS, range=(first, last))
        stored = statistics.get(band, {})
        yield BandHistogram(band, group.sensor, first, last, counts, known.size, stored.get("mean"), stored.get("std"))


def _choose_ends(values: NDArray[Any], *, is_whole: bool) -> tuple[float, float]:
    first, last = (float(end) for end in np.percentile(values, _TAILS))
    if is_whole:
        # Bins of equally many whole numbers; others would show teeth that the data do not have.
        width = max(1, math.ceil((last - first + 1) / N_BINS))
        first = float(np.floor(first)) - 0.5
        return first, first + width * N_BINS
    return first, max(last, first + 1)


def _count_cover(codes: NDArray[Any]) -> Iterator[Cover]:
    names = {code: name for name, code in CORINE_CODES.items()}
    values, counts = np.unique(codes, return_counts=True)
    ranked: Sequence[tuple[int, int]] = sorted(
        zip(values.tolist(), counts.tolist(), strict=True), key=lambda counted: (-counted[1], counted[0])
    )
    for code, n in ranked:
        yield Cover(code, names.get(code, "no class of CORINE" if code else "no data"), n / codes.size)
