"""Raw archives to test with: variations of the six real patches, written without the code under test."""

from __future__ import annotations

import json
import shutil
import struct
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

BANDS: Final = {
    **dict.fromkeys(("B02", "B03", "B04", "B08"), 120),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 60),
    **dict.fromkeys(("B01", "B09"), 20),
}
"""Rows, and columns, of each band."""

ARRAYS: Final = {
    "s2_10m": ("B02", "B03", "B04", "B08"),
    "s2_20m": ("B05", "B06", "B07", "B8A", "B11", "B12"),
    "s2_60m": ("B01", "B09"),
}
"""Bands of each array of a store, in their order."""

LIST_FILES: Final = {
    "train": "train.csv",
    "validation": "val.csv",
    "test": "test.csv",
    "snow": "patches_with_seasonal_snow.csv",
    "cloud": "patches_with_cloud_and_shadow.csv",
    "no_19": "patches_with_no_19_class_targets.csv",
}
PAIRS_FILE: Final = "s1_s2_name_country_season.csv"


@dataclass(frozen=True)
class Archive:
    """A folder of patch folders."""

    root: Path

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir() if path.is_dir())

    def folder(self, name: str) -> Path:
        return self.root / name

    def tif(self, name: str, band: str) -> Path:
        return self.root / name / f"{name}_{band}.tif"

    def note(self, name: str) -> Path:
        return self.root / name / f"{name}_labels_metadata.json"

    def read_note(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.note(name).read_bytes())
        return content

    def edit_note(self, name: str, **changes: Any) -> None:
        self.note(name).write_text(json.dumps(self.read_note(name) | changes))

    def read_band(self, name: str, band: str) -> NDArray[Any]:
        """Read a band as the oracle does."""
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.open(self.tif(name, band)) as source,
        ):
            pixels: NDArray[Any] = source.read(1)
        return pixels

    def read_array(self, name: str, array: str) -> NDArray[Any]:
        return np.stack([self.read_band(name, band) for band in ARRAYS[array]])

    def rewrite_tif(self, name: str, band: str, pixels: NDArray[Any] | None = None, **profile: Any) -> None:
        """Write a band again with rasterio, as another kind of GeoTIFF or with other pixels."""
        path = self.tif(name, band)
        with rasterio.open(path) as source:
            old = source.profile
            pixels = source.read(1) if pixels is None else pixels
        kept = {key: old[key] for key in ("crs", "transform")}
        height, width = pixels.shape
        shape = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": pixels.dtype}
        path.unlink()
        with rasterio.open(path, "w", **(shape | kept | profile)) as target:
            target.write(pixels, 1)

    def copy(self, target: Path, names: Sequence[str] | None = None) -> Archive:
        """Copy patches, in the order given, to another folder."""
        for name in self.names if names is None else names:
            shutil.copytree(self.folder(name), target / name)
        return Archive(target)

    def vary(self, name: str, model: Archive, like: str, number: int) -> None:
        """Add a patch that looks like another one but shares no pixel, corner or name with it."""
        self.folder(name).mkdir(parents=True)
        for band, size in BANDS.items():
            content = model.tif(like, band).read_bytes()
            header, pixels = content[: -2 * size * size], np.frombuffer(content[-2 * size * size :], "<u2")
            varied = np.roll(pixels, 7 * number) + np.uint16(number)
            varied[:number] = 0
            self.tif(name, band).write_bytes(_move(header, number) + varied.tobytes())
        note = model.read_note(like)
        for corner, step in (("ulx", 1), ("lrx", 1), ("uly", -1), ("lry", -1)):
            note["coordinates"][corner] += 1_200 * number * step
        self.note(name).write_text(json.dumps(note))


def _move(header: bytes, number: int) -> bytes:
    """Move the tie point in a GeoTIFF header by some patches to the south-east."""
    (n_tags,) = struct.unpack_from("<H", header, 8)
    entries = [struct.unpack_from("<HHII", header, 10 + 12 * i) for i in range(n_tags)]
    (place,) = (offset for tag, _, _, offset in entries if tag == 33922)
    moved = bytearray(header)
    x, y = struct.unpack_from("<2d", header, place + 24)
    struct.pack_into("<2d", moved, place + 24, x + 1_200 * number, y - 1_200 * number)
    return bytes(moved)


def write_lists(folder: Path, pairs: Iterable[tuple[str, str, str, str]] = (), **names: Iterable[str]) -> Path:
    """Write official lists of one's own: the names in each, and rows of (s1_name, s2_name, country, season)."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, file in LIST_FILES.items():
        (folder / file).write_text("".join(f"{name}\n" for name in names.get(key, ())))
    rows = ["s1_name,s2_name,country,season", *map(",".join, pairs)]
    (folder / PAIRS_FILE).write_text("".join(f"{row}\n" for row in rows))
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, hidden ones too, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
