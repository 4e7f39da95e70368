"""`trainer predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from trainer.commands.backend import quieten_backend
from trainer.run import RunFolder
from trainer.store import open_store


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("store")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--split", help="Only this split: train, validation or test.  [default: all patches]")
@click.option("--where", metavar="SQL", help="Only patches for which this condition on patches.parquet holds.")
@click.option(
    "--recommended/--all",
    default=False,
    show_default=True,
    help="Leave out patches with snow, cloud or shadow or without a 19-class label, or take them too.",
)
@click.option("--threads", type=int, help="Threads that decode.  [default: one a core, up to 8]")
def predict(
    model: Path, store: str, out: Path, *, split: str | None, where: str | None, recommended: bool, threads: int | None
) -> None:
    """Predict the patches of any STORE with the bands of MODEL, a .keras file or a RUN, into a Parquet table OUT.

    \b
    Example:
      python -m trainer predict RUN STORE predictions.parquet --where "country = 'Finland'"
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    opened = open_store(store)
    quieten_backend()
    from trainer.predict import predict_store  # noqa: PLC0415

    path = RunFolder(model).model_path if model.is_dir() else model
    choice: dict[str, Any] = {"split": split, "where": where, "recommended": recommended}
    with tqdm(unit="patch", leave=False, disable=not sys.stderr.isatty()) as bar:
        found = predict_store(path, opened, out, **choice, threads=threads, report=bar.update)
    n_patches = len(found.selection)
    click.echo(f"{n_patches:,} patches, {found.predicted.sum() / n_patches:.2f} labels predicted for each")
    if found.truth is None:
        click.echo("The store has other classes than the model, so the table has no true labels")
    click.echo(f"Written: {out}")
