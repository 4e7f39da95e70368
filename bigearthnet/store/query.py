"""Ask the table of a finished store questions in SQL. The only importer of DuckDB."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, Final, TypeVar

import duckdb
import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import SelectionError, StoreError
from bigearthnet.files import check_new, write_new
from bigearthnet.store.layout import REJECTS, TABLE
from bigearthnet.store.manifest import read_attributes

T = TypeVar("T")

_FORMATS: Final = {
    ".csv": "FORMAT csv, HEADER",
    ".json": "FORMAT json, ARRAY true",
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
}
"""How DuckDB writes a file, by the suffix of its name."""

_PLAIN_NAME: Final = re.compile(r"\w+", re.ASCII)
"""What the names of patches consist of; they become names of files."""


@contextmanager
def open_table(store: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the table of a finished store as the view `patches`, and its list of rejected patches as `rejected`.

    Raises:
        StoreError: There is no finished store.
        SelectionError: DuckDB cannot do what is asked of it inside the `with`.
    """
    read_attributes(store)
    views = {"patches": store / TABLE, "rejected": store / REJECTS}
    with _connect({name: path for name, path in views.items() if path.is_file()}) as connection:
        yield connection


@contextmanager
def _connect(views: Mapping[str, Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open Parquet files as views; one of them is `patches`."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")  # or what a time means would depend on where the machine stands
        try:
            for name, path in views.items():
                connection.read_parquet(str(path)).create_view(name)
        except (duckdb.Error, UnicodeEncodeError) as error:
            raise StoreError(
                f"{views['patches']}: expected a table that DuckDB opens, found one that it does not "
                f"({_shorten(error)}); copy the store again, to a path of UTF-8 characters"
            ) from error
        try:
            yield connection
        except duckdb.Error as error:
            columns = ", ".join(connection.table("patches").columns)
            raise SelectionError(f"{_shorten(error)}; the columns of patches are {columns}") from error


def _shorten(error: Exception) -> str:
    """Return the first line of DuckDB's message, which says it all."""
    return str(error).strip().partition("\n")[0]


def show_answer(store: Path, sql: str, max_rows: int = 40) -> str:
    """Draw the answer to a query as a table; of more rows than that, the first and the last.

    Raises:
        SelectionError: DuckDB cannot answer it.
    """
    with open_table(store) as connection, redirect_stdout(io.StringIO()) as shown:
        width = get_terminal_size((160, 0)).columns
        _wait(connection, lambda: _ask(connection, sql).show(max_rows=max_rows, max_width=width))
    return shown.getvalue().rstrip("\n")


def write_answer(store: Path, sql: str, path: Path) -> int:
    """Write the answer to a query to a new file, CSV, JSON or Parquet as its suffix says; return its number of rows.

    Raises:
        SelectionError: DuckDB cannot answer it, or the suffix is another one.
        OutputError: The file is already there, or cannot be written.
    """
    if path.suffix not in _FORMATS:
        raise SelectionError(f"{path}: expected a file name that ends in {', '.join(_FORMATS)}, found {path.suffix!r}")
    check_new([path])
    with open_table(store) as connection, write_new(path) as written:
        _ask(connection, sql).create_view("answer")
        copy = f"COPY answer TO {_quote(str(written))} ({_FORMATS[path.suffix]})"
        copied = _wait(connection, lambda: connection.execute(copy).fetchone())
    return int(copied[0]) if copied else 0


def select_patches(
    store: Path,
    patch_ids: Sequence[str] = (),
    *,
    where: str | None = None,
    n: int | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Select patches by name, by a condition in SQL, and at random.

    Args:
        store: A finished store.
        patch_ids: Names of patches; all patches if there are none.
        where: A condition over the columns of the table, such as `country = 'Finland'`.
        n: So many of them at most, drawn at random; all if None.
        seed: Another seed draws others.

    Returns:
        The rows of the table without geometry and bbox: those named in the order given, others by index.

    Raises:
        StoreError: There is no finished store, or a name in it is none that a patch can have.
        SelectionError: A name is not in the store, the condition cannot be understood, or nothing meets it.
    """
    with open_table(store) as connection:
        condition = _check_condition(connection.table("patches"), where)
        chosen = connection.sql(
            "SELECT * EXCLUDE (geometry, bbox) FROM patches "
            f"WHERE (len($patch_ids) = 0 OR list_contains($patch_ids, patch_id)) AND {condition} "
            "ORDER BY CASE WHEN $n IS NULL THEN '' ELSE md5(patch_id || $seed) END, index LIMIT $n",
            params={"patch_ids": list(patch_ids), "n": n, "seed": str(seed)},
        )
        rows: list[dict[str, Any]] = _wait(connection, chosen.to_arrow_table).to_pylist()
        unknown = set(patch_ids) - {row["patch_id"] for row in rows}
        if unknown:  # or left out by the condition
            known = connection.execute("SELECT patch_id FROM patches WHERE list_contains($1, patch_id)", [[*unknown]])
            unknown -= {name for (name,) in known.fetchall()}
    if unknown:
        raise SelectionError(
            f"{store}: expected names of its patches, found {', '.join(sorted(unknown)[:3])}; see `ben-convert query`"
        )
    if not rows:
        raise SelectionError(f"{store}: no patch {f'where {where}' if where else 'is there'}; widen the condition")
    for name in (row[column] for row in rows for column in ("patch_id", "s1_name")):
        if name is not None and not _PLAIN_NAME.fullmatch(name):
            raise StoreError(f"{store / TABLE}: expected names of patches, found {name!r}; copy the store again")
    place = {name: position for position, name in enumerate(patch_ids)}
    return sorted(rows, key=lambda row: (place.get(row["patch_id"], 0), row["index"]))


def select_labels(
    table: str, column: str, classes: Sequence[str], *, split: str | None, where: str | None, recommended: bool
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Select patches by split and by a condition in SQL, with the classes that they have.

    Args:
        table: Path of a store's table.
        column: The one that lists the classes of each patch.
        classes: All that there are, up to 63.
        split: Only this official split; None for all.
        where: A condition over the columns of the table.
        recommended: Leave out patches with snow, cloud or shadow, or without a 19-class label.

    Returns:
        Rows, ascending, shape (patch,); and for each the bits of its classes, bit i for class i.

    Raises:
        SelectionError: There is no such split, the condition cannot be understood, or nothing meets it.
        StoreError: The table cannot be read, or has a class that is not among these.
    """
    with _connect({"patches": Path(table)}) as connection:
        conditions = [_check_condition(connection.table("patches"), where)]
        if recommended:
            conditions.append("recommended")
        if split is not None:
            listed = connection.execute("SELECT DISTINCT split FROM patches WHERE split IS NOT NULL ORDER BY 1")
            if split not in (splits := [name for (name,) in listed.fetchall()]):
                raise SelectionError(f"no split {split!r}; the store has {', '.join(splits) or 'none'}")
            conditions.append(f"split = {_quote(split)}")
        query = (
            "SELECT index, list_aggregate([1::UBIGINT << (coalesce(nullif(list_position($classes, name), 0), 64) - 1) "
            f"FOR name IN {_quote_name(column)}], 'bit_or') AS bits "  # a class that is not listed becomes bit 63
            f"FROM patches WHERE {' AND '.join(conditions)} ORDER BY index"
        )
        rows = _wait(connection, lambda: connection.execute(query, {"classes": list(classes)}).fetchnumpy())
    indices = np.ma.getdata(rows["index"]).astype(np.int32)
    bits = np.ma.filled(rows["bits"], 0).astype(np.uint64)
    if not len(indices):
        asked = f"{f'split {split}' if split else 'any split'}{', recommended only' if recommended else ''}"
        asked += f", where {where}" if where else ""
        raise SelectionError(f"no patch matches: {asked}; widen the condition or pass recommended=False")
    if (bits >> np.uint64(len(classes))).any():
        raise StoreError(f"{table}: column {column} has classes that the store does not list")
    return indices, bits.astype(np.int64)


def _check_condition(patches: duckdb.DuckDBPyRelation, where: str | None) -> str:
    """Make sure that a condition is one whole expression, before it becomes part of a query; return it in brackets."""
    if where is None:
        return "true"
    try:
        patches.filter(where)
    except duckdb.Error as error:
        raise SelectionError(
            f"cannot select where {where}: {_shorten(error)}; the columns of patches are {', '.join(patches.columns)}"
        ) from error
    return f"({where}\n)"  # the line break ends a comment


def _wait(connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Let DuckDB work on a thread: on this one, Ctrl-C reached it only between the pieces of a query, if ever."""
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(work)
        try:
            return answer.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def _ask(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    answer: duckdb.DuckDBPyRelation | None = connection.sql(sql)
    if answer is None:
        raise SelectionError(f"expected a query such as SELECT count(*) FROM patches, found {sql!r}")
    return answer


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quote_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
