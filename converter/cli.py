"""The command line: parse, make one library call, print. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

import click
from tqdm import tqdm

from converter import __version__
from converter.convert import ConvertOptions, convert, plan_conversion
from converter.display import (
    ProgressDisplay,
    describe_info,
    describe_plan,
    describe_summary,
    describe_verification,
    format_bytes,
    format_count,
)
from converter.errors import EXIT_INTERRUPTED, ConverterError, VerificationError
from converter.info import describe_store
from converter.model import CODECS, Dataset, Sources
from converter.sample import SampleForm, write_sample
from converter.verify import VerifyOptions, verify

P = ParamSpec("P")


def _fail_clearly(command: Callable[P, None]) -> Callable[P, None]:
    """Turn the errors that are raised on purpose into one message and exit code 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ConverterError as error:
            raise click.ClickException(str(error)) from error

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="converter")
def cli() -> None:
    r"""Pack the raw BigEarthNet archive once into a store that trains fast.

    \b
    A store is a folder:
      images.zarr       sharded Zarr v3, native resolution, bit-identical pixels
      patches.parquet   GeoParquet: labels, splits, times, footprints; row i = index i of every array

    \b
    Try it without the archive:
      python -m converter sample data/sample
      python -m converter convert data/sample data/sample-store
      python -m converter info data/sample-store

    Exit codes: 0 success, 1 failed work (one message says what and what to do), 2 wrong usage, 130 interrupted.
    """


@cli.command("convert")
@click.argument("paths", nargs=-1, required=True, metavar="[RAW] STORE", type=click.Path(path_type=Path))
@click.option(
    "--s1",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Sentinel-1 archive: adds the paired patches (VV, VH). Without RAW it is converted alone.",
)
@click.option(
    "--reference-maps", type=click.Path(path_type=Path), metavar="DIR", help="Reference_Maps (v2.0): adds CORINE codes."
)
@click.option(
    "--metadata",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Official v2.0 metadata; give it twice for both files.  [default: those in or beside RAW]",
)
@click.option("--dataset", type=click.Choice(["v1", "v2"]), help="Version of BigEarthNet.  [default: as the names say]")
@click.option(
    "--bands",
    default="all",
    show_default=True,
    metavar="LIST",
    help="Bands to store, such as B04,B03,B02, or sets: rgb, rgbn, 10m, 20m, 60m, s2, s1, all.",
)
@click.option("--allow-missing-s1", is_flag=True, help="Keep patches without Sentinel-1 partner, filled with NaN.")
@click.option(
    "--codec",
    type=click.Choice(CODECS),
    default="lz4",
    show_default=True,
    help="lz4 reads fastest, zstd is a little smaller, none is raw.",
)
@click.option(
    "--shard-size",
    type=int,
    default=256,
    show_default=True,
    help="Patches in one file of an array, and in one unit of work.",
)
@click.option("--workers", type=int, help="Worker processes to start.  [default: one a core]")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Use a running dask cluster, such as tcp://head:8786, instead of starting one.",
)
@click.option(
    "--lists",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of your own official v1.0 lists (train.csv, ...).  [default: those of bigearthnet-common]",
)
@click.option(
    "--on-bad",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="Bad patches: stop converts all others, then fails with the list; skip leaves them out (rejected.parquet).",
)
@click.option(
    "--max-bad",
    type=float,
    default=0.01,
    show_default=True,
    metavar="FRACTION",
    help="Give up at once when more than this fraction of the patches is bad.",
)
@click.option(
    "--reader",
    type=click.Choice(["auto", "rasterio"]),
    default="auto",
    show_default=True,
    help="auto reads plain GeoTIFFs itself and others with rasterio; rasterio reads all of them, slowly.",
)
@click.option("--overwrite", is_flag=True, help="Replace the store that is already there.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@_fail_clearly
def convert_command(
    paths: tuple[Path, ...],
    *,
    s1: Path | None,
    reference_maps: Path | None,
    bands: str,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    r"""Convert the archive in RAW into the store STORE.

    RAW is the extracted Sentinel-2 archive: the folder of patch folders of BigEarthNet v1.0, or BigEarthNet-S2 of v2.0.
    STORE is a new folder, on a disk of this machine or one that all workers share.

    Interrupt it at any moment: the same command goes on where it stopped. A finished store is never touched unless
    --overwrite says so.

    \b
    Examples:
      python -m converter convert /data/BigEarthNet-v1.0 /data/ben
      python -m converter convert /data/BigEarthNet-v1.0 /data/ben --dry-run
      python -m converter convert /data/BigEarthNet-v1.0 /data/ben-rgb --bands rgb
      python -m converter convert /data/BigEarthNet-v1.0 /data/ben --s1 /data/BigEarthNet-S1-v1.0
      python -m converter convert /data/BigEarthNet-S2 /data/ben2 --s1 /data/BigEarthNet-S1
          --reference-maps /data/Reference_Maps
      python -m converter convert /nfs/BigEarthNet-v1.0 /nfs/ben --scheduler tcp://head:8786
    """
    if len(paths) > 2 or (len(paths) == 1 and s1 is None):
        msg = f"expected RAW and STORE, or STORE alone with --s1; found {len(paths)} path(s)"
        raise click.UsageError(msg)
    sources = Sources(paths[0] if len(paths) == 2 else None, s1, reference_maps)
    chosen = ConvertOptions(bands=tuple(name.strip() for name in bands.split(",")), **options)
    if dry_run:
        planned = plan_conversion(sources, chosen)
        click.echo(json.dumps(planned.plan.to_json(), indent=2) if as_json else describe_plan(planned))
        return
    with closing(ProgressDisplay()) as display:
        summary = convert(sources, paths[-1], chosen, display)
    if as_json:
        click.echo(json.dumps(summary.to_json(), indent=2))
    else:
        click.echo(describe_summary(summary))


@cli.command("verify")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="RAW",
    help="Sentinel-2 archive: compare every pixel and label with it.",
)
@click.option("--s1", type=click.Path(path_type=Path), metavar="DIR", help="Sentinel-1 archive to compare with.")
@click.option(
    "--reference-maps", type=click.Path(path_type=Path), metavar="DIR", help="Reference maps to compare with."
)
@click.option(
    "--metadata", type=click.Path(path_type=Path), multiple=True, metavar="FILE", help="As for convert (v2.0)."
)
@click.option("--lists", type=click.Path(path_type=Path), metavar="DIR", help="As for convert (v1.0).")
@click.option("--sample", type=int, metavar="N", help="Compare only N patches, spread over the store.  [default: all]")
@click.option("--workers", type=int, help="Worker processes to start.  [default: one a core]")
@click.option("--scheduler", metavar="ADDRESS", help="Use a running dask cluster instead of starting one.")
@click.option(
    "--reader",
    type=click.Choice(["auto", "rasterio"]),
    default="auto",
    show_default=True,
    help="rasterio reads the archive with code that the conversion did not use, slowly.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@_fail_clearly
def verify_command(
    store: Path, *, against: Path | None, s1: Path | None, reference_maps: Path | None, as_json: bool, **options: Any
) -> None:
    r"""Verify the finished store STORE: every chunk, checksum, count, label and statistic; every pixel with --against.

    Each fault is named with its array, shard and patch; any fault ends in exit code 1.

    \b
    Examples:
      python -m converter verify /data/ben
      python -m converter verify /data/ben --against /data/BigEarthNet-v1.0
      python -m converter verify /data/ben --against /data/BigEarthNet-v1.0 --sample 1000 --reader rasterio
    """
    sources = Sources(against, s1, reference_maps) if against or s1 else None
    with closing(ProgressDisplay("Verifying", "faults")) as display:
        found = verify(store, VerifyOptions(against=sources, **options), display)
    click.echo(json.dumps(found.to_json(), indent=2) if as_json else describe_verification(found))
    if found.faults:
        raise VerificationError(
            f"{store}: {format_count(len(found.faults), 'fault')}; convert the archive again with --overwrite"
        )


@cli.command("sample")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--patches", type=int, default=1000, show_default=True, help="Patches to write, real ones included.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed makes other synthetic patches.")
@click.option("--s1", is_flag=True, help="Write the Sentinel-1 pairs too; v2 always has them.")
@click.option(
    "--dataset",
    type=click.Choice(["v1", "v2"]),
    default="v1",
    show_default=True,
    help="Version of BigEarthNet whose form to write.",
)
@click.option("--workers", type=int, help="Processes to use.  [default: one a core]")
@_fail_clearly
def sample_command(out: Path, *, patches: int, seed: int, s1: bool, dataset: Dataset, workers: int | None) -> None:
    r"""Write a small archive in the exact form of BigEarthNet to the new folder OUT.

    In the form of v1, six patches are real, the ones that the package bigearthnet-common ships. The rest are SYNTHETIC:
    names, splits, countries and seasons are the official ones, labels and pixels are made up so that a model can learn
    from them. In the form of v2 all patches are synthetic, and so are their names and splits. Samples are for trying
    things out, never for results.

    \b
    OUT holds
      v1         the patch folders of Sentinel-2
      v1 --s1    BigEarthNet-v1.0 and BigEarthNet-S1-v1.0
      v2         BigEarthNet-S2, BigEarthNet-S1, Reference_Maps and two metadata files

    \b
    Examples:
      python -m converter sample data/sample
      python -m converter sample data/sample-pairs --s1
      python -m converter convert data/sample-pairs/BigEarthNet-v1.0 data/pairs-store
          --s1 data/sample-pairs/BigEarthNet-S1-v1.0
      python -m converter sample data/sample-v2 --dataset v2
      python -m converter convert data/sample-v2/BigEarthNet-S2 data/v2-store
          --s1 data/sample-v2/BigEarthNet-S1 --reference-maps data/sample-v2/Reference_Maps
    """
    form = SampleForm(dataset, with_s1=s1 or dataset == "v2")
    with tqdm(total=patches, unit=" patches", desc="Writing", disable=None) as bar:

        def show(n_done: int, _: int) -> None:
            bar.update(n_done - bar.n)

        written = write_sample(out, patches, seed, workers, show, form=form)
    click.echo(
        f"Wrote {written.n_real + written.n_synthetic:,} patches ({written.n_real} real, {written.n_synthetic:,} "
        f"synthetic), {format_bytes(written.n_bytes)}, to {out}"
    )


@cli.command("info")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@_fail_clearly
def info_command(store: Path, *, as_json: bool) -> None:
    """Say what the finished store STORE holds: arrays, ratio, provenance, counts per split, class and country."""
    found = describe_store(store)
    click.echo(json.dumps(found, indent=2) if as_json else describe_info(found))


def main() -> NoReturn:
    """Run the command line."""
    try:
        status = cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nInterrupted. What is finished is kept: run the same command again to go on.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(status)
