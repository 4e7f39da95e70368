"""`ben-convert query`: ask the table in SQL."""

from __future__ import annotations

from pathlib import Path

import click

from bigearthnet.commandline import echo, end_on_interrupt
from bigearthnet.quantity import format_count
from bigearthnet.store.database import TIME_LIMIT_S
from converter.commands.cli import PATH


@click.command()
@click.argument("store", type=PATH)
@click.argument("sql")
@click.option(
    "--out",
    type=PATH,
    metavar="FILE",
    help="Write all rows to this new file, .csv, .json or .parquet, instead of showing some.",
)
@click.option("--rows", type=click.IntRange(min=1), default=40, help="Rows to show at most.")
@click.option("--timeout", type=click.IntRange(min=1), default=TIME_LIMIT_S, help="Seconds after which to give up.")
def command(store: Path, sql: str, *, out: Path | None, rows: int, timeout: int) -> None:
    """Answer a question in SQL (DuckDB) about the patches in STORE.

    The view patches has the columns of patches.parquet, which DESCRIBE patches lists; unnest(labels_19) gives a row a
    class. If patches were left out, the view rejected has their names and reasons. docs/queries.md has more examples.
    A question reads these views and nothing else, whoever wrote it, within 4 GB of memory.

    \b
    Examples:
      ben-convert query STORE "DESCRIBE patches"
      ben-convert query STORE "SELECT country, count(*) FROM patches GROUP BY 1 ORDER BY 2 DESC"
      ben-convert query STORE "SELECT unnest(labels_19) AS class, count(*) FROM patches GROUP BY 1"
      ben-convert query STORE "SELECT patch_id FROM patches WHERE contains_seasonal_snow" --out snow.csv
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    with end_on_interrupt():
        from bigearthnet.store.query import show_answer, write_answer  # noqa: PLC0415

    if out is None:
        echo(show_answer(store, sql, rows, timeout))
        return
    echo(f"Wrote {format_count(write_answer(store, sql, out, timeout), 'row')} to {out}", err=True)
