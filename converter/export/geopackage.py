"""Write the table of a store as a GeoPackage, for GIS programs. The only importer of pyogrio, which is optional."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from bigearthnet.errors import MissingPackageError, OutputError
from bigearthnet.files import check_new, write_new
from bigearthnet.machine import advise_install
from bigearthnet.store.table import read_table

LAYER: Final = "patches"

SEPARATOR: Final = "; "
"""Stands between the values of a list, which GeoPackage does not have; class names have commas."""


def export_footprints(store: Path, indices: Sequence[int], path: Path) -> int:
    """Write the outlines of patches with all columns of the table, and return how many there are.

    Args:
        store: A finished store.
        indices: Positions of the patches.
        path: A new file, which ends in `.gpkg`.

    Raises:
        OutputError: The file is already there or cannot be written, or pyogrio is not installed.
        StoreError: The table cannot be read.
    """
    try:
        import pyogrio  # noqa: PLC0415 - an extra
        from pyogrio.errors import DataSourceError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"a GeoPackage is written with pyogrio, which is not installed: {advise_install('geo')}"
        ) from error
    check_new([path])
    table = read_table(store).take(pa.array(indices, pa.int64())).drop_columns(["bbox"])
    for name in ("labels", "labels_19"):
        joined = pc.binary_join(table[name].combine_chunks(), SEPARATOR)
        table = table.set_column(table.column_names.index(name), name, joined)
    with write_new(path) as temporary:
        try:
            pyogrio.write_arrow(
                table,
                temporary,
                layer=LAYER,
                driver="GPKG",
                geometry_name="geometry",
                geometry_type="Polygon",
                crs="EPSG:4326",
            )
        except DataSourceError as error:
            raise OutputError(f"{path}: cannot be written: {error}") from error
    return len(table)
