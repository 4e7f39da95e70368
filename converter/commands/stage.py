"""`ben-convert stage`: bring part of a store to a disk near by."""

from __future__ import annotations

from pathlib import Path

import click

from bigearthnet.commandline import echo, end_on_interrupt, show_progress
from bigearthnet.names import SPLITS
from bigearthnet.quantity import format_bytes, format_count
from converter.commands.cli import PATH


@click.command()
@click.argument("store")
@click.argument("part", type=PATH)
@click.option("--bands", default="all", help="Bands or sets of bands, as for training: rgb, s2, 10m, B08,B11...")
@click.option("--split", "splits", multiple=True, type=click.Choice(SPLITS), help="Only this split; may be repeated.")
@click.option("--where", multiple=True, metavar="SQL", help="Only patches that meet a condition over the table.")
@click.option(
    "--recommended/--all",
    default=True,
    help="Leave out patches with snow, cloud or shadow, or without a 19-class label, as training does.",
)
@click.option("--overwrite", is_flag=True, help="Replace another store, or another part, that is there.")
def command(
    store: str,
    part: Path,
    *,
    bands: str,
    splits: tuple[str, ...],
    where: tuple[str, ...],
    recommended: bool,
    overwrite: bool,
) -> None:
    """Bring what a training needs of STORE, a folder or URL, to the folder PART, such as a node's own disk.

    The result is a store of its own, which every command opens. A training on it gets the very batches that the same
    selection from STORE gives, and goes on with runs that were begun there. Every shard is compared with its checksum
    on the way. If PART is there already, nothing is copied, so that all processes of a node may ask: one copies, the
    others wait. After a kill the same command goes on.

    \b
    Examples:
      ben-convert stage /nfs/ben /scratch/ben --bands rgb --split train --split validation
      ben-convert stage s3://bucket/ben /scratch/ben --bands s2
      ben-convert stage /nfs/ben finland --where "country = 'Finland'"
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    with end_on_interrupt():
        from converter.commands.display import ProgressDisplay  # noqa: PLC0415
        from converter.staging import StageOptions, stage  # noqa: PLC0415

        options = StageOptions((bands,), splits, where, recommended, overwrite)
        with show_progress("Staging") as show:
            staged = stage(store, part, options, show, ProgressDisplay())
    what = f"{format_count(staged.n_patches, 'patch')}, {format_bytes(staged.n_bytes)}"
    echo(f"Already there: {what}, in {part}" if staged.was_there else f"Copied {what}, to {part}")
