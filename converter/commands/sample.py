"""`ben-convert sample`: write a small archive to try things out with."""

from __future__ import annotations

from pathlib import Path

import click

from bigearthnet.commandline import echo, end_on_interrupt, show_progress
from bigearthnet.names import Dataset
from bigearthnet.quantity import format_bytes
from converter.commands.cli import PATH


@click.command()
@click.argument("out", type=PATH)
@click.option("--patches", type=int, default=1000, help="Patches to write, real ones included.")
@click.option("--seed", type=int, default=0, help="Another seed makes other synthetic patches.")
@click.option("--s1", is_flag=True, help="Write the Sentinel-1 pairs too; v2 always has them.")
@click.option(
    "--dataset", type=click.Choice(["v1", "v2"]), default="v1", help="Version of BigEarthNet whose form to write."
)
@click.option("--workers", type=int, help="Processes to use.  [default: one a core]")
def command(out: Path, *, patches: int, seed: int, s1: bool, dataset: Dataset, workers: int | None) -> None:
    """Write a small archive in the exact form of BigEarthNet to the new folder OUT.

    In the form of v1, six patches are real, the ones that the package bigearthnet-common ships. The rest are SYNTHETIC:
    names, splits, countries and seasons are the official ones, labels and pixels are made up so that a model can learn
    from them. In the form of v2 all patches are synthetic, and so are their names and splits. Samples are for trying
    things out, never for results; SYNTHETIC.txt in their folders sees to it that whatever is made from them says so.

    \b
    OUT holds
      v1         the patch folders of Sentinel-2
      v1 --s1    BigEarthNet-v1.0 and BigEarthNet-S1-v1.0
      v2         BigEarthNet-S2, BigEarthNet-S1, Reference_Maps and two metadata files

    \b
    Examples:
      ben-convert sample data/sample
      ben-convert sample data/sample-pairs --s1
      ben-convert convert data/sample-pairs/BigEarthNet-v1.0 data/pairs-store
          --s1 data/sample-pairs/BigEarthNet-S1-v1.0
      ben-convert sample data/sample-v2 --dataset v2
      ben-convert convert data/sample-v2/BigEarthNet-S2 data/v2-store
          --s1 data/sample-v2/BigEarthNet-S1 --reference-maps data/sample-v2/Reference_Maps
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    with end_on_interrupt():
        from converter.sample import SampleForm, write_sample  # noqa: PLC0415

    form = SampleForm(dataset, with_s1=s1 or dataset == "v2")
    with show_progress("Writing") as show:
        written = write_sample(out, patches, seed, workers, show, form=form)
    echo(
        f"Wrote {written.n_real + written.n_synthetic:,} patches ({written.n_real} real, {written.n_synthetic:,} "
        f"synthetic), {format_bytes(written.n_bytes)}, to {out}"
    )
