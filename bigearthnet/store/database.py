"""DuckDB over the tables of a store, and over nothing else.

Whoever asks may be a stranger, and so may who wrote the table. A question reads the store's own tables and nothing
else: DuckDB may open these files alone, loads no extension, sees no variable of Python and cannot change its own
settings. Since some functions of DuckDB 2 write even so, to any file that may be read, a foreign question is put to
copies of the tables.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

import duckdb

from bigearthnet.errors import OutputError, SelectionError, StoreError

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
    views: Mapping[str, Path], *, foreign: bool = False, out: Path | None = None, numbered: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open Parquet files as views; one of them is `patches`. If numbered, rows have a `file_row_number` too."""
    with _copy(views) if foreign else nullcontext(views) as files, duckdb.connect(config=_SETTINGS) as connection:
        connection.execute("SET TimeZone = 'UTC'")  # or what a time means would depend on where the machine stands
        connection.execute("SET python_enable_replacements = false")
        try:
            for name, path in files.items():
                connection.read_parquet(os.path.abspath(path), file_row_number=numbered).create_view(name)
            allowed = ", ".join(quote(os.path.abspath(path)) for path in (*files.values(), out) if path)
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
