"""DuckDB over the tables of a store, and over nothing else.

Whoever asks may be a stranger, and so may who wrote the table. A question reads the store's own tables and nothing
else: DuckDB may open these files alone, loads no extension, sees no variable of Python and cannot change its own
settings. Since some functions of DuckDB 2 write even so, to any file that may be read, and take time and memory that
nobody counts, a foreign question is put to copies of the tables, in a process of its own.
"""

from __future__ import annotations

import glob
import math
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import duckdb

from bigearthnet.errors import BigEarthNetError, OptionError, OutputError, SelectionError, StoreError
from bigearthnet.files import open_regular
from bigearthnet.store.layout import ORIGIN

T = TypeVar("T")

TIME_LIMIT_S: Final = 600
"""For a foreign question; the longest of docs/queries.md takes seconds on a whole store."""

_MAX_GB: Final = 5
"""Memory of the process that a foreign question has to itself: DuckDB's own 4 GB and what it does not count."""

_SETTINGS: Final[dict[str, str | bool | int | float | list[str]]] = {
    "memory_limit": "4GB",  # ten times what sorting a whole table takes
    "temp_directory": "",  # nothing is spilled to disk
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
}


@contextmanager
def connect(
    views: Mapping[str, Path], *, out: Path | None = None, numbered: bool = False, join: Path | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open Parquet files as views; one of them is `patches`.

    Args:
        views: The files, by the names of their views.
        out: A file that may be written.
        numbered: Rows have a `file_row_number` too.
        join: A file of further columns of `patches`, see `join_columns`.
    """
    with duckdb.connect(config=_SETTINGS) as connection:
        connection.execute("SET TimeZone = 'UTC'")  # or what a time means would depend on where the machine stands
        connection.execute("SET python_enable_replacements = false")
        try:
            # Files by patterns that no other file matches: DuckDB takes any path for one.
            patterns = {name: glob.escape(os.path.abspath(path)) for name, path in views.items()}
            for name, pattern in patterns.items():
                connection.read_parquet(pattern, file_row_number=numbered).create_view(name)
            if join is not None:
                join_columns(connection, join)
            paths = [os.path.abspath(path) for path in (*views.values(), out) if path]
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
def copy_tables(views: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Copy the files of some views to a temporary folder, for a foreign question."""
    with TemporaryDirectory(prefix="bigearthnet-") as folder:
        copies = {name: Path(folder) / f"{name}.parquet" for name in views}
        try:
            for name, path in views.items():
                shutil.copyfile(path, copies[name])
        except OSError as error:
            raise OutputError(f"{folder}: cannot hold a copy of the store's table ({error}); make room") from error
        yield copies


def ask_apart(function: Callable[..., T], *args: Any, seconds: float = TIME_LIMIT_S) -> T:
    """Call a function in a process of its own, which ends with the time, the memory or Ctrl-C, whatever DuckDB does.

    DuckDB sees to an interrupt between the pieces of a query only, and counts what its tables take, not what its
    functions do. A question is run by `python -c`, so no script needs a guard against running twice.

    Args:
        function: One of this package; it, its arguments and what it returns are pickled.
        args: Its arguments.
        seconds: Time that it may take.

    Raises:
        SelectionError: It took more time or memory; or what it raises.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-c", f"from {__name__} import answer; answer()"]
    question = pickle.dumps((function, args, seconds))
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, input=question, stdout=subprocess.PIPE, timeout=seconds, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SelectionError(f"the question took longer than {seconds:,.0f} s; ask for less") from error
    if done.returncode:
        raise SelectionError(
            f"the question ended the process that worked on it (status {done.returncode}); it may take {_MAX_GB} GB "
            "of memory; ask for less"
        )
    answered: T | Exception = pickle.loads(done.stdout)  # noqa: S301 - from our own process
    if isinstance(answered, Exception):
        raise answered
    return answered


def answer() -> None:
    """Be the process of `ask_apart`: read a question from stdin, write the answer to stdout."""
    function, args, seconds = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own process
    _limit(resource.RLIMIT_DATA, _MAX_GB * 10**9)
    _limit(resource.RLIMIT_CPU, math.ceil(seconds * (os.cpu_count() or 1)) + 1)  # for when nobody waits any more
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # to which DuckDB draws a bar
        try:
            answered = function(*args)
        except BigEarthNetError as error:
            answered = error
        pickle.dump(answered, out)


def _limit(kind: int, most: int) -> None:
    """Limit what this process may take, to less if the system allows it less."""
    _, allowed = resource.getrlimit(kind)
    most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
    resource.setrlimit(kind, (most, most))


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
    columns, known = connection.table("joined").columns, [*connection.table("patches").columns, ORIGIN]
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
