"""Say what a finished store holds, from its own metadata and table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigearthnet.errors import StoreError
from bigearthnet.store.manifest import open_images
from bigearthnet.store.objects import LocalObjects
from bigearthnet.store.table import count_values


def describe_store(store: Path) -> dict[str, Any]:
    """Describe a finished store.

    Returns:
        JSON values: `store`, `attributes` (the root attributes), `arrays` (one record a data array) and `counts`
        (patches per value of the table's columns).

    Raises:
        StoreError: There is no finished store, or it is not the one that was written.
    """
    attributes, arrays = describe_parts(store)
    return {"store": str(store), "attributes": attributes, "arrays": arrays, "counts": count_values(store)}


def describe_parts(store: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Describe the images of a finished store, and make sure that all its files are there.

    Returns:
        Its root attributes, and one record a data array: `name`, `dimensions`, `shape`, `dtype`, `bands`, `raw_bytes`
        and `stored_bytes`.

    Raises:
        StoreError: There is no finished store, or it is not the one that was written.
    """
    manifest, attributes, infos = open_images(LocalObjects(store))
    if missing := [path for path in manifest.shards if not (store / path).is_file()]:
        raise StoreError(
            f"{store}: expected {len(manifest.shards):,} shards, {len(missing):,} of them are missing, such as "
            f"{missing[0]}; copy the store again, or convert again with the option overwrite"
        )
    arrays = [
        {
            "name": info.name,
            "dimensions": list(info.dimensions),
            "shape": list(info.shape),
            "dtype": info.dtype,
            "bands": list(info.bands),
            "raw_bytes": info.raw_bytes,
            "stored_bytes": sum(
                entry.n_bytes for path, entry in manifest.shards.items() if path.startswith(f"{info.key}/")
            ),
        }
        for info in sorted(infos, key=lambda info: info.name)
    ]
    if empty := [str(array["name"]) for array in arrays if not array["stored_bytes"]]:
        raise StoreError(
            f"{store}: expected shards of {', '.join(empty)} in its manifest, found none; copy the store again, or "
            "convert again with the option overwrite"
        )
    return attributes, arrays
