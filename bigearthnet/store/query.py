"""Ask the table of a finished store questions in SQL. The only importer of DuckDB."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, Final

import duckdb

from bigearthnet.errors import SelectionError, StoreError
from bigearthnet.files import check_new, write_new
from bigearthnet.store.layout import REJECTS, TABLE
from bigearthnet.store.manifest import read_attributes

_FORMATS: Final = {
    ".csv": "FORMAT csv, HEADER",
    ".json": "FORMAT json, ARRAY true",
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
}
"""How DuckDB writes a file, by the suffix of its name."""


@contextmanager
def open_table(store: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the table of a finished store as the view `patches`, and its list of rejected patches as `rejected`.

    Raises:
        StoreError: There is no finished store.
        SelectionError: DuckDB cannot do what is asked of it inside the `with`.
    """
    read_attributes(store)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        try:
            _create_view(connection, "patches", store / TABLE)
            if (store / REJECTS).is_file():
                _create_view(connection, "rejected", store / REJECTS)
        except (duckdb.Error, UnicodeEncodeError) as error:
            raise StoreError(
                f"{store / TABLE}: expected a table that DuckDB opens, found one that it does not "
                f"({_shorten(error)}); copy the store again, to a path of UTF-8 characters"
            ) from error
        try:
            yield connection
        except duckdb.Error as error:
            columns = ", ".join(connection.table("patches").columns)
            raise SelectionError(f"{_shorten(error)}; the columns of patches are {columns}") from error


def _create_view(connection: duckdb.DuckDBPyConnection, name: str, path: Path) -> None:
    connection.read_parquet(str(path)).create_view(name)


def _shorten(error: Exception) -> str:
    """Return the first line of DuckDB's message, which says it all."""
    return str(error).strip().partition("\n")[0]


def show_answer(store: Path, sql: str, max_rows: int = 40) -> str:
    """Draw the answer to a query as a table; of more rows than that, the first and the last.

    Raises:
        SelectionError: DuckDB cannot answer it.
    """
    with open_table(store) as connection, redirect_stdout(io.StringIO()) as shown:
        _ask(connection, sql).show(max_rows=max_rows, max_width=get_terminal_size((160, 0)).columns)
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
        copied = connection.execute(f"COPY answer TO {_quote(str(written))} ({_FORMATS[path.suffix]})").fetchone()
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
        StoreError: There is no finished store.
        SelectionError: A name is not in the store, the condition cannot be understood, or nothing meets it.
    """
    with open_table(store) as connection:
        patches = connection.table("patches")
        if where is not None:
            patches.filter(where)  # so that it is one whole expression before it becomes part of a query
        columns = [name for name in patches.columns if name not in ("geometry", "bbox")]
        rows: list[dict[str, Any]] = (
            connection.sql(
                f"SELECT {', '.join(map(_quote_name, columns))} FROM patches "
                # The line break ends a comment.
                f"WHERE (len($patch_ids) = 0 OR list_contains($patch_ids, patch_id)) AND ({where or 'true'}\n) "
                "ORDER BY CASE WHEN $n IS NULL THEN '' ELSE md5(patch_id || $seed) END, index LIMIT $n",
                params={"patch_ids": list(patch_ids), "n": n, "seed": str(seed)},
            )
            .to_arrow_table()
            .to_pylist()
        )
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
    place = {name: position for position, name in enumerate(patch_ids)}
    return sorted(rows, key=lambda row: (place.get(row["patch_id"], 0), row["index"]))


def _ask(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    answer: duckdb.DuckDBPyRelation | None = connection.sql(sql)
    if answer is None:
        raise SelectionError(f"expected a query such as SELECT count(*) FROM patches, found {sql!r}")
    return answer


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quote_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
