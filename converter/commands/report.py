"""`ben-convert report`: show a finished store on one page."""

from __future__ import annotations

from pathlib import Path

import click

from bigearthnet.commandline import echo, end_on_interrupt, show_progress
from converter.commands.cli import PATH


@click.command()
@click.argument("store", type=PATH)
@click.option("--out", type=PATH, metavar="FILE", help="The page.  [default: STORE-report.html beside STORE]")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=256,
    metavar="N",
    help="Patches whose pixels are read for the histograms.",
)
@click.option("--seed", type=int, default=0, help="Another seed draws other patches.")
@click.option("--overwrite", is_flag=True, help="Replace the page that is already there.")
def command(store: Path, *, out: Path | None, sample: int, seed: int, overwrite: bool) -> None:
    """Write a page about the finished store STORE: one HTML file that any browser opens, without network or script.

    It says where the store comes from, and has the counts of patches, splits and classes, a gallery of every class,
    classes that occur together, a map, countries, seasons and months, the time between Sentinel-1 and Sentinel-2, snow
    and cloud, and histograms of every band. The same store and options give the same page.

    \b
    Examples:
      ben-convert report /data/ben
      ben-convert report /data/ben --out ben.html --sample 1000
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    with end_on_interrupt():
        from converter.report import ReportOptions, name_report, write_report  # noqa: PLC0415

    path = out or name_report(store)
    with show_progress("Reading pixels") as show:
        write_report(store, path, ReportOptions(sample, seed, overwrite), show)
    echo(f"Wrote {path}")
