"""`ben-convert verify`: check a finished store."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from bigearthnet.archive.records import Sources
from bigearthnet.commandline import echo, end_on_interrupt
from bigearthnet.errors import VerificationError
from bigearthnet.quantity import format_count
from converter.commands.cli import PATH, cluster_options


@click.command()
@click.argument("store", type=PATH)
@click.option("--against", type=PATH, metavar="RAW", help="Sentinel-2 archive: compare every pixel and label with it.")
@click.option("--s1", type=PATH, metavar="RAW", help="Sentinel-1 archive to compare with.")
@click.option("--reference-maps", type=PATH, metavar="RAW", help="Reference maps to compare with.")
@click.option("--metadata", type=PATH, multiple=True, metavar="FILE", help="As for convert (v2.0).")
@click.option("--lists", type=PATH, metavar="DIR", help="As for convert (v1.0).")
@click.option("--sample", metavar="N|P%", help="Compare only N patches, or P percent, drawn at random.  [default: all]")
@click.option("--seed", type=int, default=0, help="Another seed draws other patches.")
@cluster_options
@click.option(
    "--reader",
    type=click.Choice(["auto", "rasterio"]),
    default="auto",
    help="rasterio reads the archive with code that the conversion did not use, slowly.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    store: Path, *, against: Path | None, s1: Path | None, reference_maps: Path | None, as_json: bool, **options: Any
) -> None:
    """Verify the finished store STORE: every chunk, checksum, count, label and statistic; every pixel with --against.

    Archives may be files as they were downloaded, or folders. Each fault is named with its array, shard and patch; any
    fault ends in exit code 1.

    \b
    Examples:
      ben-convert verify /data/ben
      ben-convert verify /data/ben --against /data/BigEarthNet-S2-v1.0.tar.gz
      ben-convert verify /data/ben --against /data/BigEarthNet-v1.0 --sample 5% --reader rasterio
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    with end_on_interrupt():
        from converter.commands.descriptions import describe_verification  # noqa: PLC0415
        from converter.commands.display import ProgressDisplay  # noqa: PLC0415
        from converter.verify.verification import VerifyOptions, verify  # noqa: PLC0415

    sources = Sources(against, s1, reference_maps) if against or s1 else None
    with closing(ProgressDisplay("Verifying", "faults")) as display:
        verification = verify(store, VerifyOptions(against=sources, **options), display)
    echo(json.dumps(verification.to_json(), indent=2) if as_json else describe_verification(verification))
    if verification.faults:
        faults = format_count(len(verification.faults), "fault")
        raise VerificationError(
            f"{store}: {faults}; remove what does not belong to the store, and if anything else is wrong, copy it "
            "again, or convert the archive again with --overwrite"
        )
