"""Take patches out of a store: as GeoTIFFs with every pixel as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.raster import write_raster
from bigearthnet.archive.tiff import Georeference
from bigearthnet.bands import REFERENCE_MAP
from bigearthnet.files import check_new, write_new
from bigearthnet.names import band_file, declared_nodata
from bigearthnet.store.images import read_layout
from bigearthnet.store.layout import Layout
from bigearthnet.store.manifest import read_attributes
from bigearthnet.store.shard import read_pixels


def export_rasters(
    store: Path,
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    stack: bool = False,
    advance: Callable[[int, int], None] = lambda *_: None,
) -> int:
    """Write patches as GeoTIFFs, each into a folder of its name, and return the number of files.

    Files are named as in the archive, `<patch>_B04.tif`, Sentinel-1 after its own patch, `<s1_name>_VV.tif`; or, of
    several bands, after the array, `<patch>_s2_10m.tif`. A patch without Sentinel-1 partner has no such files.

    Args:
        store: A finished store.
        rows: Rows of its table, as `select_patches` gives them.
        folder: The folder to write to, with or without other patches in it.
        stack: Write one file a sensor and pixel size, instead of one a band.
        advance: Called with how many patches are done, and how many there are.

    Raises:
        StoreError: The store is not finished, or damaged.
        OutputError: A patch is already there, or cannot be written.
    """
    layout = read_layout(store, read_attributes(store))
    check_new(folder / row["patch_id"] for row in rows)
    n_files = 0
    for n_done, row in enumerate(rows, 1):
        with write_new(folder / row["patch_id"]) as temporary:
            temporary.mkdir()
            for file, pixels, place, names in _read_files(store, layout, row, stack=stack):
                write_raster(temporary / file, pixels, place, names)
                n_files += 1
        advance(n_done, len(rows))
    return n_files


def _read_files(
    store: Path, layout: Layout, row: Mapping[str, Any], *, stack: bool
) -> Iterator[tuple[str, NDArray[np.generic], Georeference, tuple[str, ...]]]:
    """Yield name, pixels, place and band names of each file of a patch."""
    for group in layout.groups:
        if group.sensor == "s1" and not row["has_s1"]:
            continue
        name = row["s1_name"] or row["patch_id"] if group.sensor == "s1" else row["patch_id"]
        pixels = read_pixels(store, layout, group, row["index"])
        nodata = declared_nodata(layout.dataset, group.sensor)
        place = Georeference(row["epsg"], row["x_ul"], row["y_ul"], group.pixel_m, nodata)
        if stack and group.sensor != REFERENCE_MAP.sensor:
            yield band_file(name, group.name), pixels, place, group.bands
        else:
            for band, plane in zip(group.bands, pixels, strict=True):
                yield band_file(name, band), plane[None], place, ()
