"""Ask the table of a finished store questions in SQL. The only importer of DuckDB.

Whoever asks may be a stranger, and so may who wrote the table. A question reads the store's own tables and nothing
else: DuckDB may open these files alone, loads no extension, sees no variable of Python and cannot change its own
settings, and only a single SELECT is taken. Since some functions of DuckDB 2 write even then, to any file that may be
read, a foreign question is put to copies of the tables.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import duckdb
import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import OutputError, SelectionError, StoreError
from bigearthnet.files import check_new, write_new
from bigearthnet.labels import to_labels_19
from bigearthnet.store.layout import REJECTS, TABLE
from bigearthnet.store.manifest import open_images
from bigearthnet.store.objects import LocalObjects

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

_FORMATS: Final = {
    ".csv": "FORMAT csv, HEADER",
    ".json": "FORMAT json, ARRAY true",
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
}
"""How DuckDB writes a file, by the suffix of its name."""

_PLAIN_NAME: Final = re.compile(r"\w+", re.ASCII)
"""What the names of patches consist of; they become names of files."""


@contextmanager
def open_table(store: Path, *, foreign: bool = False, out: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the table of a finished store as the view `patches`, and its list of rejected patches as `rejected`.

    Args:
        store: The store's folder.
        foreign: SQL of others will be asked: open copies.
        out: A file that may be written.

    Raises:
        StoreError: There is no finished store, or its table is not that of its arrays.
        SelectionError: DuckDB cannot do what is asked of it inside the `with`.
    """
    _, attributes, arrays = open_images(LocalObjects(store))
    check_rows(store / TABLE, attributes, arrays[0].n_patches)
    views = {"patches": store / TABLE, "rejected": store / REJECTS}
    there = {name: path for name, path in views.items() if path.is_file()}
    with _connect(there, foreign=foreign, out=out) as connection:
        yield connection


@contextmanager
def _connect(
    views: Mapping[str, Path], *, foreign: bool = False, out: Path | None = None, numbered: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open Parquet files as views; one of them is `patches`. If numbered, rows have a `file_row_number` too."""
    with _copy(views) if foreign else nullcontext(views) as files, duckdb.connect(config=_SETTINGS) as connection:
        connection.execute("SET TimeZone = 'UTC'")  # or what a time means would depend on where the machine stands
        connection.execute("SET python_enable_replacements = false")
        try:
            for name, path in files.items():
                connection.read_parquet(os.path.abspath(path), file_row_number=numbered).create_view(name)
            allowed = ", ".join(_quote(os.path.abspath(path)) for path in (*files.values(), out) if path)
            connection.execute(f"SET allowed_paths = [{allowed}]")
        except (duckdb.Error, UnicodeEncodeError, RuntimeError) as error:  # the last of names that are no UTF-8
            raise StoreError(
                f"{views['patches']}: expected a table that DuckDB opens, found one that it does not "
                f"({_shorten(error)}); copy the store again, to a path of UTF-8 characters"
            ) from error
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            yield connection
        except duckdb.Error as error:
            columns = ", ".join(connection.table("patches").columns)
            raise SelectionError(f"{_shorten(error)}; the columns of patches are {columns}") from error


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
        with _connect({"patches": table}, numbered=True) as connection:
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


def _shorten(error: Exception) -> str:
    """Return the first line of DuckDB's message, which says it all."""
    return str(error).strip().partition("\n")[0]


def show_answer(store: Path, sql: str, max_rows: int = 40, seconds: float = TIME_LIMIT_S) -> str:
    """Draw the answer to a query as a table; of more rows than that, the first and the last.

    Raises:
        SelectionError: DuckDB cannot answer it, or not within so many seconds.
    """
    with open_table(store, foreign=True) as connection, redirect_stdout(io.StringIO()) as shown:
        width = shutil.get_terminal_size((160, 0)).columns
        _wait(connection, lambda: _ask(connection, sql).show(max_rows=max_rows, max_width=width), seconds)
    return shown.getvalue().rstrip("\n")


def write_answer(store: Path, sql: str, path: Path, seconds: float = TIME_LIMIT_S) -> int:
    """Write the answer to a query to a new file, CSV, JSON or Parquet as its suffix says; return its number of rows.

    Raises:
        SelectionError: DuckDB cannot answer it, or not within so many seconds; or the suffix is another one.
        OutputError: The file is already there, or cannot be written.
    """
    if path.suffix not in _FORMATS:
        raise SelectionError(f"{path}: expected a file name that ends in {', '.join(_FORMATS)}, found {path.suffix!r}")
    check_new([path])
    with write_new(path) as written, open_table(store, foreign=True, out=written) as connection:
        _wait(connection, lambda: _ask(connection, sql).create_view("answer"), seconds)
        file = _quote(os.path.abspath(written))
        copy = f"COPY answer TO {file} ({_FORMATS[path.suffix]}, USE_TMP_FILE false)"
        copied = _wait(connection, lambda: connection.execute(copy).fetchone(), seconds)
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
    with open_table(store, foreign=where is not None) as connection:
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
    with _connect({"patches": Path(table)}, foreign=where is not None) as connection:
        conditions = [_check_condition(connection.table("patches"), where)]
        if recommended:
            conditions.append("recommended")
        if split is not None:
            listed = connection.execute("SELECT DISTINCT split FROM patches WHERE split IS NOT NULL ORDER BY 1")
            if split not in (splits := [name for (name,) in listed.fetchall()]):
                raise SelectionError(f"no split {split!r}; the store has {', '.join(splits) or 'none'}")
            conditions.append("split = $split")
        query = (
            "SELECT index, list_aggregate([1::UBIGINT << (coalesce(nullif(list_position($classes, name), 0), 64) - 1) "
            f"FOR name IN {_quote_name(column)}], 'bit_or') AS bits "  # a class that is not listed becomes bit 63
            f"FROM patches WHERE {' AND '.join(conditions)} ORDER BY index"
        )
        asked = {"classes": list(classes)} | ({} if split is None else {"split": split})
        rows = _wait(connection, lambda: connection.execute(query, asked).fetchnumpy())
    indices = np.ma.getdata(rows["index"]).astype(np.int32)
    bits = np.ma.filled(rows["bits"], 0).astype(np.uint64)
    if not len(indices):
        choice = f"{f'split {split}' if split else 'any split'}{', recommended only' if recommended else ''}"
        choice += f", where {where}" if where else ""
        raise SelectionError(f"no patch matches: {choice}; widen the condition or pass recommended=False")
    if (bits >> np.uint64(len(classes))).any():
        raise StoreError(f"{table}: column {column} has classes that the store does not list")
    return indices, bits.astype(np.int64)


def _check_condition(patches: duckdb.DuckDBPyRelation, where: str | None) -> str:
    """Make sure that a condition is one whole expression, before it becomes part of a query; return it in brackets."""
    if where is None:
        return "true"
    _check_text(where)
    try:
        patches.filter(where)
    except duckdb.Error as error:
        raise SelectionError(
            f"cannot select where {where}: {_shorten(error)}; the columns of patches are {', '.join(patches.columns)}"
        ) from error
    return f"({where}\n)"  # the line break ends a comment


def _wait(connection: duckdb.DuckDBPyConnection, work: Callable[[], T], seconds: float = TIME_LIMIT_S) -> T:
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


def _ask(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    """Ask one SELECT. In brackets: DuckDB lets a WITH that stands outermost write files."""
    _check_text(sql)
    kinds = [statement.type for statement in connection.extract_statements(sql)]
    if kinds != [duckdb.StatementType.SELECT]:
        names = ", ".join(kind.name for kind in kinds) or "none"
        raise SelectionError(f"expected one query such as SELECT count(*) FROM patches, found {names}: {sql!r}")
    statement = sql.rstrip("; \n\t")
    return connection.sql(f"FROM (\n{statement}\n)")  # the line break ends a comment


def _check_text(sql: str) -> None:
    """Refuse what a shell passes on of bytes that are no UTF-8, for which DuckDB has no error of its own."""
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise SelectionError(f"expected SQL in UTF-8, found {sql!r}") from error


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quote_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
