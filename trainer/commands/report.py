"""`ben-train report`."""

from __future__ import annotations

from pathlib import Path

import click

from bigearthnet.commandline import echo
from trainer.source.store import open_store


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--split", help="The split to show in detail.  [default: test if it was measured, else validation, else train]"
)
@click.option("--store", help="Where the store is now, which the pictures come from.  [default: where it was]")
def command(run: Path, *, split: str | None, store: str | None) -> None:
    """Show a training on one page, RUN/report.html, which needs nothing else and may be mailed or printed.

    Learning curves; scores by class, country and season; precision and recall; which classes are mistaken for which;
    the best and the worst patches; and what the training was. `ben-train evaluate` writes it too; after `ben-train fit`
    alone it has the learning curves, and says what is missing.

    \b
    Example:
      ben-train report RUN --split validation
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    from trainer.report import write_report  # noqa: PLC0415 - takes a second, and needs what only training needs

    written = write_report(run, None if store is None else open_store(store), split)
    for note in written.notes:
        echo(f"Note: {note}")
    echo(f"Written: {written.path}")
