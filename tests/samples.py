"""The stores of the samples, made by the commands of docs/queries.md in a folder of the tests' own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from numpy.typing import NDArray

from converter.commands.cli import cli
from tests.archives import Archive
from tests.documents import find_commands
from tests.forms import ARRAYS_V2, V2Archive, official_lists, open_here

N_PATCHES: Final = {"data/sample": 140, "data/sample-pairs": 24, "data/sample-v2": 70}
"""Patches of each sample: fewer than the commands would write."""


@dataclass(frozen=True)
class Samples:
    """A folder in which the commands have run, and what the tests know of its archives."""

    root: Path

    def table(self, store: str) -> Path:
        return self.root / "data" / store / "patches.parquet"

    def images(self, store: str) -> Path:
        return self.root / "data" / store / "images.zarr"

    def rows(self, store: str) -> list[dict[str, Any]]:
        """Read the table as plain records."""
        rows: list[dict[str, Any]] = pq.read_table(self.table(store)).to_pylist()
        return rows

    def tif(self, store: str, row: dict[str, Any], band: str) -> Path:
        """Find the GeoTIFF that a band of a patch was made from."""
        if store == "v2-store":
            return V2Archive(self.root / "data/sample-v2", (row,)).tif(row["patch_id"], band)
        if store == "sample-store":
            return self.v1.tif(row["patch_id"], band)
        folder = self.root / "data/sample-pairs"
        if band in ARRAYS_V2["s1_10m"]:
            return Archive(folder / "BigEarthNet-S1-v1.0").tif(row["s1_name"], band)
        return Archive(folder / "BigEarthNet-v1.0").tif(row["patch_id"], band)

    @property
    def v1(self) -> Archive:
        """The archive of `sample-store`."""
        return Archive(self.root / "data/sample")

    def read_array(self, store: str, row: dict[str, Any], array: str) -> NDArray[Any]:
        """Read the pixels of a patch from its archive, as rasterio does."""
        bands = []
        for band in ARRAYS_V2[array]:
            with rasterio.open(self.tif(store, row, band)) as source:
                bands.append(source.read(1))
        return bands[0] if array == "reference_map" else np.stack(bands)


def make_samples(root: Path) -> Samples:
    """Write the samples and convert them, in this process.

    Two places of the first sample are seen a second time, and one of its patches cannot be converted. The pairs are in
    two more stores, `pairs-zstd` and `pairs-none`.
    """
    with run_commands_in(root):
        for program, command, *arguments in find_commands("queries.md"):
            assert program == "ben-convert"
            if command == "sample":
                options = ["--patches", str(N_PATCHES[arguments[0]]), "--workers", "1"]
            else:
                options = ["--on-bad", "skip", "--max-bad", "0.1", "--shard-size", "32"]
            cli.main([command, *arguments, *options], standalone_mode=False)
            if arguments == ["data/sample"]:
                _add_oddities(Archive(root / "data/sample"))
            if "data/pairs-store" in arguments:
                for codec in ("zstd", "none"):
                    again = [name.replace("pairs-store", f"pairs-{codec}") for name in arguments]
                    cli.main([command, *again, *options, "--codec", codec], standalone_mode=False)
    return Samples(root)


@contextmanager
def run_commands_in(folder: Path) -> Iterator[None]:
    """Let commands work in a folder and in this process, and read the official lists once."""
    lists = official_lists()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("converter.conversion.open_cluster", open_here)
        patch.setattr("converter.sample.write.read_lists", lambda: lists)  # they take seconds each time
        patch.setattr("bigearthnet.archive.catalogue.read_lists", lambda _: lists)
        yield


def _add_oddities(archive: Archive) -> None:
    seen_again = list(_find_revisits(archive.names))[:2]
    for name, other in seen_again:
        _see_again(archive, name, other)
    spoiled = next(name for name in reversed(archive.names) if name not in dict(seen_again))
    archive.tif(spoiled, "B05").unlink()


def _find_revisits(names: list[str]) -> Iterator[tuple[str, str]]:
    """Find listed patches in another season at the place of one of these, as (name, other name)."""
    pairing_of = official_lists().pairing_of
    at = {pairing_of[name].s1_name.rsplit("_", 3)[1:][0] + "_".join(name.rsplit("_", 2)[1:]): name for name in names}
    for other, pairing in pairing_of.items():
        name = at.get(pairing.s1_name.rsplit("_", 3)[1] + "_".join(other.rsplit("_", 2)[1:]))
        if name and other not in names and pairing.season != pairing_of[name].season:
            yield name, other


def _see_again(archive: Archive, name: str, other: str) -> None:
    """Add a patch of another day, with the pixels of one that is there."""
    shutil.copytree(archive.folder(name), archive.folder(other))
    for path in archive.folder(other).iterdir():
        path.rename(path.with_name(path.name.replace(name, other)))
    day = other.split("_")[2]
    archive.note(other).write_text(
        json.dumps(archive.read_note(other) | {"acquisition_date": f"{day[:4]}-{day[4:6]}-{day[6:8]} 10:00:00"})
    )
