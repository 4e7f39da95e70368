"""`ben-convert export`: take patches out of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from bigearthnet.commandline import echo, end_on_interrupt, show_progress
from bigearthnet.names import parse_patch_name
from bigearthnet.quantity import format_count
from converter.commands.cli import PATH


@click.command()
@click.argument("store", type=PATH)
@click.argument("patch_ids", nargs=-1, metavar="[PATCH]...")
@click.argument("out", type=PATH)
@click.option("--where", metavar="SQL", help="Only patches that meet a condition over the table.")
@click.option("--stack", is_flag=True, help="One file of several bands for each sensor and pixel size.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["tif", "gpkg"]),
    help="GeoTIFFs of the pixels, or a GeoPackage of the footprints.  [default: gpkg if OUT ends in .gpkg, else tif]",
)
def command(
    store: Path,
    patch_ids: tuple[str, ...],
    out: Path,
    *,
    where: str | None,
    stack: bool,
    kind: Literal["tif", "gpkg"] | None,
) -> None:
    """Write patches of STORE, all of them or those chosen, to the folder or GeoPackage OUT.

    GeoTIFFs have the pixels, CRS, corner, type and nodata value of the archive, a folder a patch. A GeoPackage, which
    QGIS opens, has the outlines in longitude and latitude (EPSG:4326) and the columns of the table; of lists, the
    values stand behind one another with semicolons between.

    \b
    Examples:
      ben-convert export STORE S2A_MSIL2A_20170617T113321_36_85 patches
        -> patches/S2A_MSIL2A_20170617T113321_36_85/S2A_MSIL2A_20170617T113321_36_85_B04.tif, ...
      ben-convert export STORE S2A_MSIL2A_20170617T113321_36_85 stacks --stack
        -> stacks/S2A_MSIL2A_20170617T113321_36_85/S2A_MSIL2A_20170617T113321_36_85_s2_10m.tif, ...
      ben-convert export STORE snow --where "country = 'Finland' and contains_seasonal_snow"
      ben-convert export STORE footprints.gpkg
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    kind = kind or ("gpkg" if out.suffix.lower() == ".gpkg" else "tif")
    if kind == "gpkg" and stack:
        raise click.UsageError("--stack arranges the bands of GeoTIFFs; a GeoPackage has none")
    if kind == "gpkg" and out.suffix.lower() != ".gpkg":
        raise click.UsageError(f"expected a file name that ends in .gpkg, found {out}")
    if parse_patch_name(out.name):
        raise click.UsageError(f"expected the folder to write to as the last word, found the patch {out}")
    with end_on_interrupt():
        from bigearthnet.store.query import select_patches  # noqa: PLC0415
        from converter.export.geopackage import export_footprints  # noqa: PLC0415
        from converter.export.geotiffs import export_rasters  # noqa: PLC0415

    rows = select_patches(store, patch_ids, where=where)
    if kind == "gpkg":
        n_patches = export_footprints(store, [row["index"] for row in rows], out)
        echo(f"Wrote {format_count(n_patches, 'footprint')} to {out}")
        return
    with show_progress("Exporting") as show:
        n_files = export_rasters(store, rows, out, stack=stack, advance=show)
    echo(f"Wrote {format_count(n_files, 'file')} of {format_count(len(rows), 'patch')} to {out}")
