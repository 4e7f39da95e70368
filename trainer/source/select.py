"""Choose patches by split and by SQL over `patches.parquet`. The only importer of DuckDB."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import SelectionError, StoreError


def select_patches(
    table: str,
    label_column: str,
    classes: Sequence[str],
    *,
    split: str | None,
    where: str | None,
    recommended: bool,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Select the rows of a table; see `Store.select`.

    Returns:
        Rows, ascending, shape (patch,); and for each the bits of its classes, bit i for class i.
    """
    with duckdb.connect() as connection:
        patches = connection.read_parquet(table)
        conditions = _list_conditions(connection, table, split, recommended=recommended)
        if where is not None:
            try:
                patches.filter(where)  # so that it is one whole expression before it becomes part of the query
            except duckdb.Error as error:
                reason = str(error).strip().splitlines()[0]
                raise SelectionError(
                    f"cannot select where {where}: {reason}; the columns are {', '.join(patches.columns)}"
                ) from error
            conditions.append(f"({where}\n)")  # the line break ends a comment
        query = (
            "SELECT index, list_aggregate([1::UBIGINT << (coalesce(nullif(list_position($classes, name), 0), 64) - 1) "
            f"FOR name IN {label_column}], 'bit_or') AS bits "  # a class that is not listed becomes bit 63
            f"FROM read_parquet($table) WHERE {' AND '.join(conditions) or 'true'} ORDER BY index"
        )
        try:
            found = connection.execute(query, {"classes": list(classes), "table": table}).fetchnumpy()
        except duckdb.Error as error:
            raise SelectionError(f"{table}: cannot select{f' where {where}' if where else ''}: {error}") from error
    indices = np.ma.getdata(found["index"]).astype(np.int32)
    bits = np.ma.filled(found["bits"], 0).astype(np.uint64)
    if not len(indices):
        raise SelectionError(_describe_nothing(split, where, recommended=recommended))
    if (bits >> np.uint64(len(classes))).any():
        raise StoreError(f"{table}: column {label_column} has classes that the store does not list")
    return indices, bits.astype(np.int64)


def _list_conditions(
    connection: duckdb.DuckDBPyConnection, table: str, split: str | None, *, recommended: bool
) -> list[str]:
    conditions = ["recommended"] if recommended else []
    if split is None:
        return conditions
    rows = connection.execute("SELECT DISTINCT split FROM read_parquet($1) WHERE split IS NOT NULL", [table]).fetchall()
    known = sorted(name for (name,) in rows)
    if split not in known:
        raise SelectionError(f"no split {split!r}; the store has {', '.join(known) or 'none'}")
    return [*conditions, f"split = '{split}'"]


def _describe_nothing(split: str | None, where: str | None, *, recommended: bool) -> str:
    asked = [f"split {split}"] if split else ["any split"]
    asked += ["recommended only"] if recommended else []
    asked += [f"where {where}"] if where else []
    return f"no patch matches: {', '.join(asked)}; widen the condition or pass recommended=False"
