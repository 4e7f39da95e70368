"""Ask the table of a finished store questions in SQL, and select patches by conditions in SQL."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import duckdb
import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import SelectionError, StoreError
from bigearthnet.files import check_new, write_new
from bigearthnet.labels import LABELS_19, LABELS_43
from bigearthnet.names import SPLITS, suggest
from bigearthnet.store.database import TIME_LIMIT_S, ask_apart, connect, copy_tables, quote, shorten
from bigearthnet.store.layout import ORIGIN, REJECTS, TABLE
from bigearthnet.store.manifest import open_images
from bigearthnet.store.objects import LocalObjects
from bigearthnet.store.rows import check_rows

T = TypeVar("T")

_FORMATS: Final = {
    ".csv": "FORMAT csv, HEADER",
    ".json": "FORMAT json, ARRAY true",
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
}
"""How DuckDB writes a file, by the suffix of its name."""

MAX_CLASSES: Final = 63
"""Labels are bits of an int64."""

_TEXT: Final = re.compile("'([^']+)'")
"""A text in SQL, or the parts of one that has quotes in it."""

_PLAIN_NAME: Final = re.compile(r"\w+", re.ASCII)
"""What the names of patches consist of; they become names of files."""


@contextmanager
def open_table(store: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the table of a finished store as the view `patches`, and its list of rejected patches as `rejected`.

    Args:
        store: The store's folder.

    Raises:
        StoreError: There is no finished store, or its table is not that of its arrays.
        SelectionError: DuckDB cannot do what is asked of it inside the `with`.
    """
    with connect(_list_tables(store)) as connection:
        yield connection


def show_answer(store: Path, sql: str, max_rows: int = 40, seconds: float = TIME_LIMIT_S) -> str:
    """Draw the answer to a query as a table; of more rows than that, the first and the last.

    Raises:
        SelectionError: DuckDB cannot answer it, or not within so many seconds.
    """
    width = shutil.get_terminal_size((160, 0)).columns
    with copy_tables(_list_tables(store)) as views:
        return ask_apart(_draw_answer, views, sql, max_rows, width, seconds=seconds)


def _draw_answer(views: Mapping[str, Path], sql: str, max_rows: int, width: int) -> str:
    with connect(views) as connection, redirect_stdout(io.StringIO()) as shown:
        _ask(connection, sql).show(max_rows=max_rows, max_width=width)
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
    with write_new(path) as written, copy_tables(_list_tables(store)) as views:
        return ask_apart(_copy_answer, views, sql, written, _FORMATS[path.suffix], seconds=seconds)


def _copy_answer(views: Mapping[str, Path], sql: str, written: Path, form: str) -> int:
    with connect(views, out=written) as connection:
        _ask(connection, sql).create_view("answer")
        file = quote(os.path.abspath(written))
        copied = connection.execute(f"COPY answer TO {file} ({form}, USE_TMP_FILE false)").fetchone()
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
    views = _list_tables(store)
    selected, unknown = _ask_tables(views, where is not None, _select_rows, list(patch_ids), where, n, str(seed))
    if unknown:
        raise SelectionError(
            f"{store}: expected names of its patches, found {', '.join(unknown[:3])}; see `ben-convert query`"
        )
    rows: list[dict[str, Any]] = selected.to_pylist()
    if not rows:
        question = _ask_alike(views, [where] if where else [])
        choice = f"where {where}" if where else "is there"
        raise SelectionError(f"{store}: no patch {choice}; widen the condition.{question}")
    for name in (row[column] for row in rows for column in ("patch_id", "s1_name")):
        if name is not None and not _PLAIN_NAME.fullmatch(name):
            raise StoreError(f"{store / TABLE}: expected names of patches, found {name!r}; copy the store again")
    place = {name: position for position, name in enumerate(patch_ids)}
    return sorted(rows, key=lambda row: (place.get(row["patch_id"], 0), row["index"]))


def _select_rows(
    views: Mapping[str, Path], patch_ids: list[str], where: str | None, n: int | None, seed: str
) -> tuple[Any, list[str]]:
    """Select rows, as an Arrow table, and say which names are none of the store."""
    with connect(views) as connection:
        condition = _check_condition(connection.table("patches"), where)
        selected = connection.sql(
            "SELECT * EXCLUDE (geometry, bbox) FROM patches "
            f"WHERE (len($patch_ids) = 0 OR list_contains($patch_ids, patch_id)) AND {condition} "
            "ORDER BY CASE WHEN $n IS NULL THEN '' ELSE md5(patch_id || $seed) END, index LIMIT $n",
            params={"patch_ids": patch_ids, "n": n, "seed": seed},
        ).to_arrow_table()
        unknown = set(patch_ids).difference(selected["patch_id"].to_pylist())
        if unknown:  # or left out by the condition
            known = connection.execute("SELECT patch_id FROM patches WHERE list_contains($1, patch_id)", [[*unknown]])
            unknown -= {name for (name,) in known.fetchall()}
    return selected, sorted(unknown)


class Selected(NamedTuple):
    """Some patches of a store, in its order."""

    rows: NDArray[np.int32]
    """Their rows, ascending, shape (patch,)."""
    indices: NDArray[np.int32]
    """Their rows in the whole, if the store is a part of one; else the same."""
    bits: NDArray[np.int64]
    """Bit i is set where a patch has class i, bit 63 where it has one that is not listed; shape (patch,)."""
    classes: tuple[str, ...]


def select_labels(
    table: str,
    column: str,
    classes: Sequence[str] | None,
    *,
    split: str | None,
    where: Sequence[str],
    recommended: bool,
    join: Path | None = None,
) -> Selected:
    """Select patches by split and by conditions in SQL, with the classes that they have.

    Args:
        table: Path of a store's table.
        column: The one that lists the classes of each patch, or names one, or several joined by semicolons. Patches of
            which it says nothing (null) are left out.
        classes: All that there are, up to 63; None for all names in the column, in alphabetical order.
        split: Only this official split; None for all.
        where: Conditions over the columns of the table, all of which must hold.
        recommended: Leave out patches with snow, cloud or shadow, or without a 19-class label.
        join: A file of further columns, see `bigearthnet.store.database.join_columns`.

    Raises:
        SelectionError: There is no such split or column, a condition cannot be understood, or nothing meets it.
        StoreError: The table cannot be read.
    """
    views = {"patches": Path(table)}
    asked = (column, classes and list(classes), split, list(where), recommended, join)
    selected = _ask_tables(views, bool(where), _select_bits, *asked)
    if not len(selected.rows):
        choice = f"{f'split {split}' if split else 'any split'}{', recommended only' if recommended else ''}"
        choice += f", where {' and '.join(where)}" if where else ""
        question = _ask_alike(views, where)
        raise SelectionError(f"no patch matches: {choice}; widen the condition or pass recommended=False.{question}")
    if (np.diff(selected.indices) <= 0).any():
        raise StoreError(f"{table}: expected {ORIGIN} to ascend; copy the store again")
    return selected


def _select_bits(
    views: Mapping[str, Path],
    column: str,
    classes: Sequence[str] | None,
    split: str | None,
    where: Sequence[str],
    recommended: bool,
    join: Path | None,
) -> Selected:
    with connect(views, join=join) as connection:
        patches = connection.table("patches")
        names = _list_names(patches, column)
        conditions = [f"{_quote_name(column)} IS NOT NULL", *(_check_condition(patches, one) for one in where)]
        if classes is None:
            listed = f"SELECT DISTINCT unnest({names}) FROM patches ORDER BY 1"
            rows = connection.execute(listed).fetchall()
            classes = _check_classes(column, [name for (name,) in rows])
        if recommended:
            conditions.append("recommended")
        if split is not None:
            listed_splits = connection.execute("SELECT DISTINCT split FROM patches WHERE split IS NOT NULL ORDER BY 1")
            if split not in (splits := [name for (name,) in listed_splits.fetchall()]):
                raise SelectionError(f"no split {split!r}; the store has {', '.join(splits) or 'none'}")
            conditions.append("split = $split")
        origin = ORIGIN if ORIGIN in patches.columns else "index"
        query = (
            f"SELECT index, {origin} AS origin, list_aggregate([1::UBIGINT << ("
            "coalesce(nullif(list_position($classes, name), 0), 64) - 1) "  # a class that is not listed becomes bit 63
            f"FOR name IN {names}], 'bit_or') AS bits FROM patches WHERE {' AND '.join(conditions)} ORDER BY index"
        )
        asked = {"classes": list(classes)} | ({} if split is None else {"split": split})
        selected = connection.execute(query, asked).fetchnumpy()
    return Selected(
        np.ma.getdata(selected["index"]).astype(np.int32),
        np.ma.getdata(selected["origin"]).astype(np.int32),
        np.ma.filled(selected["bits"], 0).astype(np.uint64).view(np.int64),
        tuple(classes),
    )


def _ask_alike(views: Mapping[str, Path], where: Sequence[str]) -> str:
    """Ask whether other names were meant than those in conditions that no patch meets."""
    words = [word for condition in where for word in _TEXT.findall(condition)]
    return suggest(words, [*SPLITS, *LABELS_43, *LABELS_19, *_list_countries(views)]) if words else ""


def _list_countries(views: Mapping[str, Path]) -> list[str]:
    with connect(views) as connection:
        listed = connection.execute("SELECT DISTINCT country FROM patches WHERE country IS NOT NULL ORDER BY 1")
        return [country for (country,) in listed.fetchall()]


def _list_names(patches: duckdb.DuckDBPyRelation, column: str) -> str:
    """Return the SQL that lists the classes that a column names."""
    kinds = dict(zip(patches.columns, map(str, patches.types), strict=True))
    quoted = _quote_name(column)
    if kinds.get(column) == "VARCHAR[]":
        return quoted
    if kinds.get(column) == "VARCHAR":
        return f"list_filter([trim(name) FOR name IN string_split({quoted}, ';')], lambda name: name <> '')"
    raise SelectionError(
        f"expected a column of text, or of lists of it, that names classes, found {column!r}, "
        f"{kinds.get(column, 'which is not there')}; the columns of patches are {', '.join(patches.columns)}"
    )


def _check_classes(column: str, names: list[str | None]) -> tuple[str, ...]:
    classes = tuple(name for name in names if name is not None)
    if not 0 < len(classes) == len(names) <= MAX_CLASSES:
        raise SelectionError(
            f"expected 1 to {MAX_CLASSES} classes in the column {column!r}, and no nulls in its lists, found "
            f"{len(names):,}, such as {', '.join(map(str, names[:3])) or 'none'}"
        )
    return classes


def _list_tables(store: Path) -> dict[str, Path]:
    """List the tables of a finished store by the names of their views."""
    _, attributes, arrays = open_images(LocalObjects(store))
    check_rows(store / TABLE, attributes, arrays[0].n_patches)
    views = {"patches": store / TABLE, "rejected": store / REJECTS}
    return {name: path for name, path in views.items() if path.is_file()}


def _ask_tables(views: Mapping[str, Path], is_foreign: bool, function: Callable[..., T], *args: Any) -> T:
    """Call a function with tables: here, or with a condition, which may be foreign, in a process of its own."""
    if not is_foreign:
        return function(views, *args)
    with copy_tables(views) as copies:
        return ask_apart(function, copies, *args)


def _check_condition(patches: duckdb.DuckDBPyRelation, where: str | None) -> str:
    """Make sure that a condition is one whole expression, before it becomes part of a query; return it in brackets."""
    if where is None:
        return "true"
    _check_text(where)
    try:
        patches.filter(where)
    except duckdb.Error as error:
        raise SelectionError(
            f"cannot select where {where}: {shorten(error)}; the columns of patches are {', '.join(patches.columns)}"
        ) from error
    return f"({where}\n)"  # the line break ends a comment


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


def _quote_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
