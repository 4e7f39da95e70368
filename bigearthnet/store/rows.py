"""Hold the rows of a store's table against its arrays and root attributes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import duckdb

from bigearthnet.errors import SelectionError, StoreError
from bigearthnet.labels import to_labels_19
from bigearthnet.store.database import connect

_DECIDING: Final = {
    "index": "INTEGER",
    "patch_id": "VARCHAR",
    "labels": "VARCHAR[]",
    "labels_19": "VARCHAR[]",
    "split": "VARCHAR",
    "recommended": "BOOLEAN",
    "has_s1": "BOOLEAN",
}
"""Types of the columns that decide what a training sees."""

_ROWS: Final = f"""
    SELECT
        count(*),
        count(*) FILTER (index IS DISTINCT FROM file_row_number),
        count(*) FILTER ({" OR ".join(f"{name} IS NULL" for name in _DECIDING if name != "split")})
    FROM patches
"""

_SETS: Final = """
    CREATE TEMP TABLE sets AS
    WITH counted AS (
        SELECT labels, labels_19, recommended, split, count(*) AS n, min(index) AS first, max(index) AS last
        FROM patches GROUP BY ALL
    )
    SELECT
        *,
        len([name FOR name IN labels IF list_contains($names, name)]) = len(labels)
            AND len([name FOR name IN labels_19 IF list_contains($classes, name)]) = len(labels_19) AS is_known,
        list_sort(list_distinct([$translated[list_position($names, name)] FOR name IN labels])) = list_sort(labels_19)
            AS is_translated
    FROM counted
"""
"""Most patches share their set of labels with others, so that there are few sets."""

_SPLITS: Final = """
    SELECT split, sum(n)::BIGINT, min(first), max(last) FROM sets WHERE recommended GROUP BY split LIMIT 100
"""


def check_rows(table: Path, attributes: Mapping[str, Any], n_patches: int) -> None:
    """Hold the rows of a table against arrays and root attributes: a training would not notice that labels are others.

    Args:
        table: The table of a store.
        attributes: Its root attributes.
        n_patches: Length of its arrays.

    Raises:
        StoreError: A row is missing, or there is one too many; `index` is not the number of each row; a column that a
            training looks at is missing or of another type; labels are not of the store's classes, or `labels_19` is
            not what `labels` give; a split is not the range of rows that the attributes name.
    """
    try:
        with connect({"patches": table}, numbered=True) as connection:
            fault = _find_fault(connection, attributes, n_patches)
    except (SelectionError, RuntimeError, ValueError) as error:  # the last two of text that is no UTF-8
        fault = str(error)
    if fault:
        raise StoreError(f"{table}: is not the table of these arrays: {fault}; copy the store again, or convert again")


def _find_fault(connection: duckdb.DuckDBPyConnection, attributes: Mapping[str, Any], n_patches: int) -> str | None:
    """Say what is wrong with a table."""
    patches = connection.table("patches")
    kinds = dict(zip(patches.columns, map(str, patches.types), strict=True))
    for name, kind in _DECIDING.items():
        if kinds.get(name) != kind:
            return f"expected a column {name} of type {kind}, found {kinds.get(name, 'none')}"
    ((n_rows, n_moved, n_empty),) = connection.execute(_ROWS).fetchall()
    if n_rows != n_patches:
        return f"expected {n_patches:,} rows, found {n_rows:,}"
    if n_moved:
        return f"expected the number of each row as its index, found others in {n_moved:,} rows"
    if n_empty:
        return f"expected no nulls in {', '.join(name for name in _DECIDING if name != 'split')}, found {n_empty:,}"
    names = attributes["labels_43"] or attributes["labels_19"]
    classes = {"names": names, "classes": attributes["labels_19"]}
    translated = {"translated": [next(iter(to_labels_19([name])), None) for name in names]}
    connection.execute(_SETS, classes | translated)
    if foreign := connection.execute("FROM sets WHERE NOT is_known LIMIT 1").fetchall():
        return f"expected classes that the store lists, found {foreign[0][0]} and {foreign[0][1]}"
    if other := connection.execute("FROM sets WHERE NOT is_translated LIMIT 1").fetchall():
        return f"expected labels_19 to be what labels give, found {other[0][1]} for {other[0][0]}"
    ranges = {
        split: (first, first + n) if last == first + n - 1 else None
        for split, n, first, last in connection.execute(_SPLITS).fetchall()
    }
    expected = {split: tuple(rows) for split, rows in attributes["splits"].items() if rows[0] < rows[1]}
    return None if ranges == expected else f"expected splits of the rows {expected}, found {ranges}"
