"""The other forms of the archive to test with: Sentinel-1 pairs, and v2.0 with maps and metadata.

Written with rasterio and not with the code under test.
"""

from __future__ import annotations

import dataclasses
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio import Affine

from bigearthnet.archive.lists import OfficialLists, packaged_example, read_lists
from bigearthnet.archive.records import Sources
from converter.conversion import ConvertOptions, Summary, convert
from converter.events import OnEvent, ignore
from tests.archives import ARRAYS, BANDS, Archive, write_lists

ARRAYS_V2: Final = {**ARRAYS, "s1_10m": ("VV", "VH"), "reference_map": ("reference_map",)}
SIZES: Final = {**BANDS, "VV": 120, "VH": 120, "reference_map": 120}

METADATA: Final = "metadata.parquet"
FLAGGED_METADATA: Final = "metadata_for_patches_with_snow_cloud_or_shadow.parquet"
SCHEMA: Final = pa.schema(
    [
        ("patch_id", pa.string()),
        ("labels", pa.list_(pa.field("element", pa.string()))),
        ("split", pa.string()),
        ("country", pa.string()),
        ("s1_name", pa.string()),
        ("s2v1_name", pa.string()),
        ("contains_seasonal_snow", pa.bool_()),
        ("contains_cloud_or_shadow", pa.bool_()),
    ]
)
"""Columns of the official metadata, in their order."""

_LABELS: Final = (
    ("Arable land", "Broad-leaved forest", "Mixed forest", "Pastures"),
    ("Transitional woodland, shrub",),
    ("Inland wetlands", "Marine waters", "Urban fabric"),
)
_CODES: Final = np.array([112, 211, 231, 311, 313, 324, 411, 523, 999], np.uint16)
"""CORINE codes, and one that is none: they are stored as they are."""

_PARTS: Final = (
    *(("train", False, False),) * 5,
    ("validation", False, False),
    ("test", False, False),
    ("train", True, False),
    ("test", False, True),
)
"""Split, snow, and cloud or shadow of each patch."""

SEASONS: Final = ("Spring", "Summer", "Fall", "Winter")


@cache
def official_lists() -> OfficialLists:
    """Read the official lists, which takes seconds, once for all tests."""
    return read_lists()


@dataclass(frozen=True)
class V2Archive:
    """A folder that holds what v2.0 consists of."""

    root: Path
    rows: tuple[dict[str, Any], ...]
    """What the metadata says of each patch."""

    @property
    def names(self) -> list[str]:
        return [row["patch_id"] for row in self.rows]

    @property
    def s2(self) -> Path:
        return self.root / "BigEarthNet-S2"

    @property
    def s1(self) -> Path:
        return self.root / "BigEarthNet-S1"

    @property
    def maps(self) -> Path:
        return self.root / "Reference_Maps"

    @property
    def sources(self) -> Sources:
        return Sources(self.s2, self.s1, self.maps)

    def row(self, name: str) -> dict[str, Any]:
        return next(row for row in self.rows if row["patch_id"] == name)

    def tif(self, name: str, band: str) -> Path:
        if band in ("VV", "VH"):
            s1_name: str = self.row(name)["s1_name"]
            folder = self.s1 / s1_name.rsplit("_", 3)[0] / s1_name
        else:
            folder = (self.maps if band == "reference_map" else self.s2) / name.rsplit("_", 2)[0] / name
        return folder / f"{folder.name}_{band}.tif"

    def read_array(self, name: str, array: str) -> NDArray[Any]:
        """Read the bands of an array of the store as the oracle does."""
        pixels = []
        for band in ARRAYS_V2[array]:
            with rasterio.open(self.tif(name, band)) as source:
                pixels.append(source.read(1))
        return pixels[0] if array == "reference_map" else np.stack(pixels)

    def rewrite(self, name: str, band: str, pixels: NDArray[Any] | None = None, **profile: Any) -> None:
        """Write a band again, as another kind of GeoTIFF or with other pixels."""
        path = self.tif(name, band)
        with rasterio.open(path) as source:
            old = source.profile
            pixels = source.read(1) if pixels is None else pixels
        kept = {key: old[key] for key in ("crs", "transform", "nodata")}
        path.unlink()
        _write_tif(path, pixels, **(kept | profile))

    def copy(self, target: Path) -> V2Archive:
        return V2Archive(Path(shutil.copytree(self.root, target)), self.rows)


def write_v2(root: Path) -> V2Archive:
    """Write nine patches from three scenes: five to train with, and one of every other kind."""
    random = np.random.default_rng(0)
    rows = []
    for number, (split, snow, cloud) in enumerate(_PARTS):
        column, row = 5 + 9 * number, 77 - 8 * number
        second = 31 + 10 * (number % 2)
        rows.append(
            {
                "patch_id": f"S2A_MSIL2A_20170613T1010{second}_N9999_R022_T33UUP_{column:02}_{row:02}",
                "labels": list(_LABELS[number % 3]),
                "split": split,
                "country": ("Austria", "Finland")[number % 2],
                "s1_name": f"S1B_IW_GRDH_1SDV_20170612T1658{second}_33UUP_{column}_{row}",
                "s2v1_name": f"S2A_MSIL2A_20170613T1010{second + 1}_{column}_{row}",
                "contains_seasonal_snow": snow,
                "contains_cloud_or_shadow": cloud,
            }
        )
    archive = V2Archive(root, tuple(rows))
    for number, name in enumerate(archive.names):
        for band, size in SIZES.items():
            path = archive.tif(name, band)
            path.parent.mkdir(parents=True, exist_ok=True)
            place = {
                "crs": f"EPSG:{32633 + number % 2}",
                "transform": Affine(1_200 / size, 0, 300_000 + 1_200 * number, 0, -1_200 / size, 5_400_000),
            }
            if band == "reference_map":
                codes = random.choice(_CODES, (size, size))
                _write_tif(path, codes, **place, nodata=0, compress="deflate", predictor=2)
            elif band in ("VV", "VH"):
                _write_tif(path, random.normal(-14, 5, (size, size)).astype(np.float32), **place)
            else:
                # Zeros are pixels like all others, although they are declared to be none.
                _write_tif(path, random.integers(0, 12, (size, size), np.uint16) * np.uint16(1_500), **place, nodata=0)
    write_v2_metadata(archive.root, archive.rows)
    return archive


def write_v2_metadata(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write both metadata files."""
    folder.mkdir(parents=True, exist_ok=True)
    flagged = [row for row in rows if row["contains_seasonal_snow"] or row["contains_cloud_or_shadow"]]
    write_rows(folder / METADATA, [row for row in rows if row not in flagged])
    write_rows(folder / FLAGGED_METADATA, flagged)


def write_rows(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema = SCHEMA) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path, compression="zstd")


def write_v2_lists(folder: Path, archive: V2Archive) -> Path:
    """Write v1.0 lists that know the seasons of the same patches, but for those of the last."""
    pairs = [
        (row["s1_name"], row["s2v1_name"], "Elsewhere", SEASONS[number % 4]) for number, row in enumerate(archive.rows)
    ]
    return write_lists(folder, pairs[:-1])


def _write_tif(path: Path, pixels: NDArray[Any], **profile: Any) -> None:
    height, width = pixels.shape
    shape = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **(shape | profile)) as target:
        target.write(pixels, 1)


@dataclass(frozen=True)
class Pairs:
    """Patches of v1.0 and their Sentinel-1 partners."""

    s2: Archive
    s1: Archive
    lists: Path
    """Official lists that name these patches only."""

    @property
    def sources(self) -> Sources:
        return Sources(self.s2.root, self.s1.root)

    @property
    def partner_of(self) -> dict[str, str]:
        """Sentinel-1 name by Sentinel-2 name, as the published JSON files say."""
        return {self.s1.read_note(name)["corresponding_s2_patch"]: name for name in self.s1.names}

    def options(self, **changes: Any) -> ConvertOptions:
        defaults: dict[str, Any] = {"lists": self.lists, "shard_size": 4}
        return ConvertOptions(**(defaults | changes))

    def copy(self, target: Path) -> Pairs:
        return dataclasses.replace(self, s2=self.s2.copy(target / "s2"), s1=self.s1.copy(target / "s1"))


def extract_pairs(folder: Path) -> Pairs:
    """Extract the six real pairs, and write lists that put five of them into a split."""
    for sensor in ("S1", "S2"):
        with tarfile.open(packaged_example(sensor)) as archive:
            archive.extractall(folder, filter="data")
    pairs = Pairs(
        Archive(folder / "BigEarthNet-S2-Example"), Archive(folder / "BigEarthNet-S1-Example"), folder / "lists"
    )
    named = [(s1_name, name, "Somewhere", "Summer") for name, s1_name in pairs.partner_of.items()]
    write_lists(
        pairs.lists,
        named,
        train=pairs.s2.names[:3],
        validation=pairs.s2.names[3:4],
        test=pairs.s2.names[4:5],
        snow=pairs.s2.names[5:],
    )
    return pairs


class _HereCluster:
    """Runs tasks in this process, one after another."""

    n_workers = 1
    dashboard = "nowhere"

    def run(self, work: Callable[[Any], Any], tasks: Sequence[Any], on_outcome: Callable[[Any], None]) -> None:
        for task in tasks:
            on_outcome(work(task))


@contextmanager
def open_here(*_: object) -> Iterator[_HereCluster]:
    """Stand in for `converter.cluster.open_cluster`, whose processes take seconds to start."""
    yield _HereCluster()


def convert_here(sources: Sources | Path, store: Path, options: ConvertOptions, on_event: OnEvent = ignore) -> Summary:
    """Convert without dask."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("converter.conversion.open_cluster", open_here)
        return convert(sources, store, options, on_event)
