"""Say what a finished store holds, from its own metadata and table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigearthnet.errors import StoreError
from bigearthnet.store.images import describe_arrays, read_attributes
from bigearthnet.store.table import count_values, read_table_metadata


def describe_store(store: Path) -> dict[str, Any]:
    """Describe a finished store.

    Returns:
        JSON values: `store`, `attributes` (the root attributes), `arrays` (one record a data array) and `counts`
        (patches per value of the table's columns).

    Raises:
        StoreError: There is no finished store, or its table belongs to other images.
    """
    attributes, arrays = describe_parts(store)
    return {
        "store": str(store),
        "attributes": attributes,
        "arrays": arrays,
        "counts": count_values(store),
    }


def describe_parts(store: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Describe the images of a finished store, and make sure that they and the table belong together.

    Returns:
        Its root attributes, and one record a data array.

    Raises:
        StoreError: There is no finished store, or its table belongs to other images.
    """
    attributes = read_attributes(store)
    found = read_table_metadata(store).get("fingerprint")
    if found != attributes["fingerprint"]:
        raise StoreError(
            f"{store}: expected table and images of one conversion, found fingerprints {found} and "
            f"{attributes['fingerprint']}; put back the files that belong together, or convert again"
        )
    arrays = describe_arrays(store)
    if empty := [array["name"] for array in arrays if not array["stored_bytes"]]:
        raise StoreError(
            f"{store}: expected shards of every array, found none of {', '.join(empty)}; "
            "copy the store again, or convert again with --overwrite"
        )
    return attributes, arrays
