"""Questions to the table: what DuckDB answers is what pyarrow reads, and a question it cannot answer says why."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from bigearthnet.errors import SelectionError, StoreError
from bigearthnet.store.layout import TABLE
from bigearthnet.store.query import select_patches, show_answer, write_answer
from tests.archives import read_files
from tests.conftest import RunCli
from tests.manifests import seal_again
from trainer import open_store


@pytest.fixture(scope="module")
def rows(store: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(store / "patches.parquet").to_pylist()
    return found


def test_rows_are_those_of_the_table_without_geometry(store: Path, rows: list[dict[str, Any]]) -> None:
    expected = [{name: row[name] for name in row if name not in ("geometry", "bbox")} for row in rows]
    assert select_patches(store) == expected


def test_patches_come_in_the_order_in_which_they_are_named(store: Path, rows: list[dict[str, Any]]) -> None:
    names = [rows[index]["patch_id"] for index in (7, 2, 11)]
    assert [row["index"] for row in select_patches(store, names)] == [7, 2, 11]


def test_a_condition_leaves_patches_out(store: Path, rows: list[dict[str, Any]]) -> None:
    found = select_patches(store, where="country = 'Country 1' and recommended -- all of them")
    expected = [row["index"] for row in rows if row["country"] == "Country 1" and row["recommended"]]
    assert [row["index"] for row in found] == expected


def test_a_draw_is_the_same_again_and_another_one_with_another_seed(store: Path) -> None:
    draws = [[row["index"] for row in select_patches(store, n=8, seed=seed)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert set(draws[0]) != set(draws[2])
    assert len(set(draws[0])) == 8


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"patch_ids": ["S2A_of_another_store"]}, "S2A_of_another_store"),
        ({"where": "country = 'Atlantis'"}, "Atlantis"),
        ({"where": "continent = 'Europe'"}, "the columns of patches are index, patch_id"),
        ({"where": "true) OR (true"}, "syntax error"),
        ({"where": "true; DROP VIEW patches"}, "Parser Error"),
        ({"where": "country = '\udcff'"}, "expected SQL in UTF-8"),
    ],
)
def test_a_choice_of_nothing_or_of_nonsense_is_a_clear_error(store: Path, choice: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message.replace("(", r"\(").replace(")", r"\)")):
        select_patches(store, **choice)


def test_an_answer_is_drawn(store: Path) -> None:
    shown = show_answer(store, "SELECT country, count(*) AS n FROM patches GROUP BY 1 ORDER BY 2 DESC, 1")
    assert "│ Country 0 │" in shown
    assert len(show_answer(store, "FROM patches", max_rows=3).splitlines()) < 15


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_an_answer_is_written_whole(store: Path, rows: list[dict[str, Any]], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"it's{suffix}"
    assert write_answer(store, "SELECT index, patch_id FROM patches ORDER BY index", path) == len(rows)
    found = {
        ".csv": lambda: pyarrow.csv.read_csv(path).to_pylist(),
        ".json": lambda: json.loads(path.read_text()),
        ".parquet": lambda: pq.read_table(path).to_pylist(),
    }[suffix]()
    assert found == [{"index": row["index"], "patch_id": row["patch_id"]} for row in rows]
    assert list(tmp_path.iterdir()) == [path]


def test_rejected_patches_can_be_asked_for_where_there_are_any(store: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="rejected"):
        show_answer(store, "FROM rejected")


def test_the_command_shows_or_writes_and_never_overwrites(store: Path, tmp_path: Path, run_cli: RunCli) -> None:
    sql = "SELECT count(*) AS patches FROM patches"
    assert "22" in run_cli("query", store, sql).out
    written = run_cli("query", store, sql, "--out", tmp_path / "n.csv")
    assert (written.out, written.err) == ("", f"Wrote 1 row to {tmp_path}/n.csv\n")
    assert (tmp_path / "n.csv").read_text() == "patches\n22\n"
    assert "already there" in run_cli("query", store, sql, "--out", tmp_path / "n.csv").error
    assert (
        "ends in .csv, .json, .parquet, found '.xls'" in run_cli("query", store, sql, "--out", tmp_path / "n.xls").error
    )
    assert "syntax error" in run_cli("query", store, "SELEC 1").error


def test_there_must_be_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected a finished store"):
        select_patches(tmp_path)


@pytest.mark.parametrize("column", ["patch_id", "s1_name"])
@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "..", "", "a\0b", "a b"])
@pytest.mark.parametrize("command", ["export", "preview"])
def test_a_name_that_could_lead_out_of_a_folder_never_becomes_a_path(
    column: str, name: str, command: str, store: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    table = pq.read_table(copy / TABLE)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, table.schema.field(column), pa.array([name] * len(table))), copy / TABLE)
    seal_again(copy)
    out = tmp_path / "a" / "b"
    options = (out,) if command == "export" else ("--random", "1", "--out", out)
    ended = run_cli(command, copy, *options)
    assert "expected names of patches" in ended.error
    assert repr(name) in ended.error
    assert {path.name for path in tmp_path.iterdir()} == {"copy"}


# -- Foreign questions -----------------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A folder with files that no question may read, and in which none may write."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.csv").write_text("key\nhunter2\n")
    pq.write_table(pa.table({"key": ["hunter2"]}), tmp_path / "secret" / "key.parquet")
    return tmp_path / "secret"


READING = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_csv('SECRET/key.csv')",
    "SELECT * FROM read_json_objects('SECRET/key.csv')",
    "SELECT * FROM sniff_csv('SECRET/key.csv')",
    "SELECT * FROM read_parquet('SECRET/key.parquet')",
    "SELECT * FROM parquet_metadata('SECRET/key.parquet')",
    "SELECT * FROM 'SECRET/key.parquet'",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM 'https://example.org/key.parquet'",
    "SELECT * FROM read_text('s3://bucket/key')",
    "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "SELECT * FROM rows_of_python",
    "SELECT * FROM duckdb_secrets()",
    "SELECT getenv('HOME')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM read_text(''/etc/passwd'')'))",
]
WRITING = [
    "COPY (SELECT 1) TO 'SECRET/new.csv'",
    "WITH t AS (COPY (SELECT 1) TO 'SECRET/new.csv') SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "ATTACH 'SECRET/new.db'",
    "EXPORT DATABASE 'SECRET/new'",
    "IMPORT DATABASE 'SECRET'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET memory_limit = '100GB'",
    "RESET memory_limit",
    "PRAGMA threads = 64",
    "CALL enable_logging(storage = 'file', storage_path = 'SECRET/new')",
    "SELECT * FROM enable_logging(storage = 'file', storage_path = 'SECRET/new')",
    "CREATE TABLE new AS SELECT 1",
    "CREATE SECRET (TYPE s3)",
    "DROP VIEW patches",
    "SELECT 1; SELECT 2",
    "SELECT 1) UNION ALL (SELECT 2",
    "SELECT '\udcff'",
    "",
]


@pytest.mark.parametrize("sql", READING + WRITING)
def test_a_question_reads_and_writes_nothing_but_its_tables(
    sql: str, store: Path, secret: Path, tmp_path: Path
) -> None:
    rows_of_python = pa.table({"key": ["hunter2"]})
    before = read_files(secret) | read_files(store)
    sql = sql.replace("SECRET", str(secret))
    with pytest.raises(SelectionError):
        show_answer(store, sql)
    with pytest.raises(SelectionError):
        write_answer(store, sql, tmp_path / "out.csv")
    assert read_files(secret) | read_files(store) == before
    assert sorted(tmp_path.iterdir()) == [secret]
    del rows_of_python


@pytest.mark.parametrize("sql", READING)
def test_a_condition_reads_nothing_but_its_table(sql: str, store: Path, secret: Path) -> None:
    query = sql.replace("SECRET", str(secret)).replace("SELECT *", "SELECT count(*)")
    with pytest.raises(SelectionError):
        select_patches(store, where=f"({query}) IS NOT NULL")
    with pytest.raises(SelectionError):
        open_store(store).select(where=f"({query}) IS NOT NULL")


def test_no_question_changes_the_table_that_it_may_read(store: Path, tmp_path: Path) -> None:
    """Functions of DuckDB 2 run statements that are hidden in a text, and those may write what may be read."""
    before = read_files(store)
    write = f"WITH t AS (COPY (SELECT 1) TO ''{store}/patches.parquet'' (USE_TMP_FILE false)) SELECT 1"
    sql = f"SELECT * FROM json_execute_serialized_sql(json_serialize_sql('{write}'))"
    with pytest.raises(SelectionError):
        show_answer(store, sql)
    with pytest.raises(SelectionError):
        select_patches(store, where=f"({sql}) = 1")
    assert read_files(store) == before


def test_a_condition_may_ask_the_table_itself(store: Path, rows: list[dict[str, Any]]) -> None:
    where = "country = (SELECT country FROM patches ORDER BY index LIMIT 1)"
    expected = [row["index"] for row in rows if row["country"] == rows[0]["country"]]
    assert [row["index"] for row in select_patches(store, where=where)] == expected


@pytest.mark.parametrize(
    "sql", ["DESCRIBE patches", "SUMMARIZE patches", "SHOW TABLES", "SELECT 1 AS n;", "FROM patches"]
)
def test_questions_about_the_table_are_answered(sql: str, store: Path) -> None:
    assert "│" in show_answer(store, sql)


def test_a_store_in_a_relative_folder_answers(store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(store.parent)
    assert write_answer(Path(store.name), "FROM patches", Path("answer.parquet")) == 22
    (store.parent / "answer.parquet").unlink()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b",
        "SELECT count(*) FROM generate_series(1, 1000000000000)",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
    ],
)
def test_a_question_that_would_take_for_ever_is_given_up(sql: str, store: Path) -> None:
    with pytest.raises(SelectionError, match="the question took longer than 1 s"):
        show_answer(store, sql, seconds=1)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT string_agg(repeat('x', 1000000)) FROM range(10000)",
        "SELECT len(string_split(repeat('x,', 300000000), ','))",  # DuckDB does not count what its functions take
    ],
)
def test_a_question_that_needs_all_memory_is_given_up(sql: str, store: Path) -> None:
    """What does not fit is not spilled to disk either, and the process that asks has memory left."""
    with pytest.raises(SelectionError, match=r"Out of Memory|ended the process|longer than 5 s"):
        show_answer(store, sql, seconds=5)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < 5e9


def test_no_copy_is_left(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    show_answer(store, "FROM patches")
    with pytest.raises(SelectionError):
        show_answer(store, "SELECT nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_question_is_answered_where_the_system_allows_less_memory(store: Path) -> None:
    """As batch systems do, with a limit that no process may raise."""
    code = (
        "import resource, sys; from pathlib import Path; from bigearthnet.store.query import show_answer\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (3 * 10**9, 3 * 10**9))\n"
        "print(show_answer(Path(sys.argv[1]), 'SELECT count(*) AS n FROM patches'))"
    )
    command = [sys.executable, "-c", code, str(store)]
    assert "22" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
