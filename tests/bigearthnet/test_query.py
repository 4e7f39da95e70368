"""Questions to the table: what DuckDB answers is what pyarrow reads, and a question it cannot answer says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from bigearthnet.errors import SelectionError, StoreError
from bigearthnet.store.layout import TABLE
from bigearthnet.store.query import select_patches, show_answer, write_answer
from tests.conftest import RunCli
from tests.manifests import seal_again


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
