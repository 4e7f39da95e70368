"""`ben-convert convert`: pack an archive into a store."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from bigearthnet.archive.records import ON_BAD, Sources
from bigearthnet.commandline import echo, end_on_interrupt
from bigearthnet.store.layout import CODECS
from converter.commands.cli import PATH, cluster_options


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="[RAW] STORE", type=PATH)
@click.option(
    "--s1",
    type=PATH,
    metavar="RAW",
    help="Sentinel-1 archive: adds the paired patches (VV, VH). Without RAW it is converted alone.",
)
@click.option("--reference-maps", type=PATH, metavar="RAW", help="Reference_Maps (v2.0): adds CORINE codes.")
@click.option(
    "--metadata",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Official v2.0 metadata; give it twice for both files.  [default: those in or beside RAW]",
)
@click.option("--dataset", type=click.Choice(["v1", "v2"]), help="Version of BigEarthNet.  [default: as the names say]")
@click.option(
    "--bands",
    default="all",
    metavar="LIST",
    help="Bands to store, such as B04,B03,B02, or sets: rgb, rgbn, 10m, 20m, 60m, s2, s1, all.",
)
@click.option("--allow-missing-s1", is_flag=True, help="Keep patches without Sentinel-1 partner, filled with NaN.")
@click.option(
    "--codec",
    type=click.Choice(CODECS),
    default="lz4",
    help="lz4 reads fastest, zstd is a little smaller, none is raw.",
)
@click.option("--shard-size", type=int, default=256, help="Patches in one file of an array, and in one unit of work.")
@cluster_options
@click.option(
    "--lists",
    type=PATH,
    metavar="DIR",
    help="Folder of your own official v1.0 lists (train.csv, ...).  [default: those of bigearthnet-common]",
)
@click.option(
    "--on-bad",
    type=click.Choice(ON_BAD),
    default="stop",
    help="Bad patches: stop converts all others, then fails with the list; skip leaves them out (rejected.parquet).",
)
@click.option(
    "--max-bad",
    type=float,
    default=0.01,
    metavar="FRACTION",
    help="Give up at once when more than this fraction of the patches is bad.",
)
@click.option(
    "--reader",
    type=click.Choice(["auto", "rasterio"]),
    default="auto",
    help="auto reads plain GeoTIFFs itself and others with rasterio; rasterio reads all of them, slowly.",
)
@click.option("--overwrite", is_flag=True, help="Replace the store that is already there.")
@click.option(
    "--profile",
    "profile_path",
    type=PATH,
    metavar="FILE",
    help="Write where the time goes, as JSON, and print it: stages of the run, and pieces of its workers' time.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    paths: tuple[Path, ...],
    *,
    s1: Path | None,
    reference_maps: Path | None,
    bands: str,
    profile_path: Path | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Convert the archive in RAW into the store STORE.

    RAW is the Sentinel-2 archive, as the file that was downloaded (.tar, .tar.gz, .tar.zst, .tar.bz2), or - for a tar
    stream on standard input, or extracted: the folder of patch folders of BigEarthNet v1.0, or BigEarthNet-S2 of v2.0.
    STORE is a new folder, on a disk of this machine or one that all workers share.

    Interrupt it at any moment: the same command goes on where it stopped; a stream must be piped again. A finished
    store is never touched unless --overwrite says so.

    \b
    Examples:
      ben-convert convert /data/BigEarthNet-S2-v1.0.tar.gz /data/ben
      ben-convert convert /data/BigEarthNet-v1.0 /data/ben --dry-run
      ben-convert convert /data/BigEarthNet-v1.0 /data/ben-rgb --bands rgb
      ben-convert convert /data/BigEarthNet-v1.0 /data/ben --s1 /data/BigEarthNet-S1-v1.0
      ben-convert convert /data/BigEarthNet-S2 /data/ben2 --s1 /data/BigEarthNet-S1
          --reference-maps /data/Reference_Maps.tar.zst
      ben-convert convert /data/BigEarthNet-v1.0 /data/ben --profile profile.json
      curl https://... | ben-convert convert - /data/ben
      ben-convert convert /nfs/BigEarthNet-v1.0 /nfs/ben --scheduler tcp://head:8786
      ben-convert convert /nfs/BigEarthNet-v1.0 /nfs/ben --scheduler scheduler.json --worker-wait 3600
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    if len(paths) > 2 or (len(paths) == 1 and s1 is None):
        msg = f"expected RAW and STORE, or STORE alone with --s1; found {len(paths)} path(s)"
        raise click.UsageError(msg)
    if dry_run and profile_path:
        msg = "--dry-run converts nothing that --profile could measure; give one of them"
        raise click.UsageError(msg)
    with end_on_interrupt():
        from converter.commands.descriptions import describe_profile, describe_summary  # noqa: PLC0415
        from converter.commands.display import ProgressDisplay, describe_plan  # noqa: PLC0415
        from converter.conversion import ConvertOptions, convert, plan_conversion  # noqa: PLC0415
        from converter.profile import Profile, check_profile, write_profile  # noqa: PLC0415

    sources = Sources(paths[0] if len(paths) == 2 else None, s1, reference_maps)
    chosen = ConvertOptions(bands=(bands,), **options)
    if dry_run:
        planned = plan_conversion(sources, chosen)
        echo(json.dumps(planned.plan.to_json(), indent=2) if as_json else describe_plan(planned))
        return
    profile = None
    if profile_path:
        check_profile(profile_path, (*sources.roots.values(), paths[-1]))
        profile = Profile()
    try:
        with closing(ProgressDisplay()) as display:
            summary = convert(sources, paths[-1], chosen, display, profile)
    except KeyboardInterrupt:
        kept = "Interrupted. What is finished is kept: run the same command again to go on."
        raise KeyboardInterrupt(kept) from None
    if profile and profile_path:
        write_profile(profile_path, profile)
    if as_json:
        echo(json.dumps(summary.to_json(), indent=2))
        return
    echo(describe_summary(summary))
    if profile:
        echo(f"\n{describe_profile(profile)}")
