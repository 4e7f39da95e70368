"""Stores that a test has changed, with manifests that say that all is well."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bigearthnet.store.manifest import build_manifest, encode_manifest, read_manifest
from bigearthnet.store.objects import LocalObjects


def seal_again(store: Path, **changes: Any) -> None:
    """Write the manifest of a store anew, for files that a test has changed or with other statements of its own."""
    was = read_manifest(LocalObjects(store))
    manifest = build_manifest(store, was.fingerprint, was.counts, was.shards)
    (store / "manifest.json").write_bytes(encode_manifest(replace(manifest, **changes)))


def edit_metadata(store: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the metadata of the images."""
    path = store / "images.zarr" / "zarr.json"
    metadata = json.loads(path.read_text())
    edit(metadata)
    path.write_text(json.dumps(metadata))
    seal_again(store)


def edit_table(store: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    """Change the table."""
    path = store / "patches.parquet"
    pq.write_table(edit(pq.read_table(path)), path)
    seal_again(store)


def set_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Replace a column; values that are no Arrow array get its type."""
    place = table.schema.get_field_index(name)
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array(values, table.schema.field(name).type)
    return table.set_column(place, name, values)


def drop_splits(store: Path, dropped: tuple[str, ...]) -> None:
    """Make a store of patches that are in none of these splits."""

    def edit(table: pa.Table) -> pa.Table:
        kept = [None if split in dropped else split for split in table["split"].to_pylist()]
        recommended = [
            flag and split is not None for flag, split in zip(table["recommended"].to_pylist(), kept, strict=True)
        ]
        return set_column(set_column(table, "split", kept), "recommended", recommended)

    edit_table(store, edit)
    edit_metadata(store, lambda root: root["attributes"]["splits"].update({split: [0, 0] for split in dropped}))


def drop_classes_43(store: Path) -> None:
    """Make a store of a source that has 19 classes, as v2.0."""
    edit_table(store, lambda table: set_column(table, "labels", table["labels_19"]))
    edit_metadata(store, lambda root: root["attributes"].update(labels_43=[]))
