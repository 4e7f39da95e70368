"""DuckDB over the tables of a store, and over nothing else.

Whoever asks may be a stranger, and so may who wrote the table. A question reads the store's own tables and nothing
else: DuckDB may open these files alone, loads no extension, sees no variable of Python and cannot change its own
settings. Since some functions of DuckDB 2 write even so, to any file that may be read, a foreign question is put to
copies of the tables.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

import duckdb

from bigearthnet.errors import OptionError, OutputError, SelectionError, StoreError
from bigearthnet.files import open_regular

T = TypeVar("T")

TIME_LIMIT_S: Final = 600
"""For a foreign question; the longest of docs/queries.md takes seconds on a whole store."""

_SETTINGS: Final[dict[str, str | bool | int | float | list[str]]] = {
    "memory_limit": "4GB",  # ten times what sorting a whole table takes
    "temp_directory": "",  # nothing is spilled to disk
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
}


@contextmanager
def connect(
    views: Mapping[str, Path],
    *,
    foreign: bool = False,
    out: Path | None = None,
    numbered: bool = False,
    join: Path | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open Parquet files as views; one of them is `patches`.

    Args:
        views: The files, by the names of their views.
        foreign: SQL of others will be asked: open copies.
        out: A file that may be written.
        numbered: Rows have a `file_row_number` too.
        join: A file of further columns of `patches`, see `join_columns`.
    """
    with _copy(views) if foreign else nullcontext(views) as files, duckdb.connect(config=_SETTINGS) as connection:
        connection.execute("SET TimeZone = 'UTC'")  # or what a time means would depend on where the machine stands
        connection.execute("SET python_enable_replacements = false")
        try:
            # Files by patterns that no other file matches: DuckDB takes any path for one.
            patterns = {name: glob.escape(os.path.abspath(path)) for name, path in files.items()}
            for name, pattern in patterns.items():
                connection.read_parquet(pattern, file_row_number=numbered).create_view(name)
            if join is not None:
                join_columns(connection, join)
            paths = [os.path.abspath(path) for path in (*files.values(), out) if path]
            allowed = ", ".join(map(quote, (*patterns.values(), *paths)))
            connection.execute(f"SET allowed_paths = [{allowed}]")
        except (duckdb.Error, UnicodeEncodeError, RuntimeError) as error:  # the last of names that are no UTF-8
            raise StoreError(
                f"{views['patches']}: expected a table that DuckDB opens, found one that it does not "
                f"({shorten(error)}); copy the store again, to a path of UTF-8 characters"
            ) from error
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            yield connection
        except duckdb.Error as error:
            columns = ", ".join(connection.table("patches").columns)
            raise SelectionError(f"{shorten(error)}; the columns of patches are {columns}") from error


@contextmanager
def _copy(views: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Copy files to a temporary folder."""
    with TemporaryDirectory(prefix="bigearthnet-") as folder:
        copies = {name: Path(folder) / f"{name}.parquet" for name in views}
        try:
            for name, path in views.items():
                shutil.copyfile(path, copies[name])
        except OSError as error:
            raise OutputError(f"{folder}: cannot hold a copy of the store's table ({error}); make room") from error
        yield copies


def wait_for(connection: duckdb.DuckDBPyConnection, work: Callable[[], T], seconds: float = TIME_LIMIT_S) -> T:
    """Let DuckDB work on a thread: on this one, Ctrl-C reached it only between the pieces of a query, if ever."""
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(work)
        try:
            return answer.result(seconds)
        except TimeoutError as error:
            connection.interrupt()
            raise SelectionError(f"the question took longer than {seconds:,.0f} s; ask for less") from error
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def shorten(error: Exception) -> str:
    """Return the first line of DuckDB's message, which says it all."""
    return str(error).strip().partition("\n")[0]


def quote(text: str) -> str:
    """Write a text as SQL does."""
    return "'" + text.replace("'", "''") + "'"


def join_columns(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Add the columns of a file to the view `patches`, by patch_id; they are null where the file has no such patch.

    The file is read into memory, so no question can reach it later.

    Args:
        connection: Over the table of a store.
        path: CSV or Parquet with a column patch_id, each patch once, and columns that the table does not have.

    Raises:
        OptionError: It is another kind of file.
        SelectionError: It cannot be read, has no such columns, or none of the store's patches.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise OptionError(f"{path}: expected a file to join whose name ends in .csv or .parquet")
    name = glob.escape(os.path.abspath(path))
    try:
        os.close(open_regular(path))
        read = connection.read_csv(name) if path.suffix == ".csv" else connection.read_parquet(name)
        read.create("joined")
    except (OSError, duckdb.Error, UnicodeEncodeError) as error:
        raise SelectionError(f"{path}: cannot be read as a table to join ({shorten(error)})") from error
    columns, known = connection.table("joined").columns, connection.table("patches").columns
    twice = {name.lower() for name in columns} & {name.lower() for name in known} - {"patch_id"}
    if "patch_id" not in columns or twice or len(columns) < 2:
        wrong = f"the table of the store has {', '.join(sorted(twice))} already" if twice else f"found {columns}"
        raise SelectionError(f"{path}: expected a column patch_id, and others that the table does not have; {wrong}")
    counts = "SELECT count(*), count(patch_id), count(DISTINCT patch_id::VARCHAR) FROM joined"
    ((n_rows, n_named, n_different),) = connection.execute(counts).fetchall()
    if not n_rows == n_named == n_different:
        raise SelectionError(
            f"{path}: expected each patch_id once, found {n_different:,} different ones in {n_rows:,} rows"
        )
    if not connection.execute("FROM joined SEMI JOIN patches USING (patch_id) LIMIT 1").fetchall():
        raise SelectionError(f"{path}: none of its {n_rows:,} patches is in the store; compare the names in patch_id")
    connection.execute("ALTER VIEW patches RENAME TO stored")
    connection.execute(
        "CREATE VIEW patches AS SELECT stored.*, joined.* EXCLUDE (patch_id) FROM stored LEFT JOIN joined "
        "ON stored.patch_id = joined.patch_id::VARCHAR"
    )
