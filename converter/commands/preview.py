"""`ben-convert preview`: draw patches."""

from __future__ import annotations

from pathlib import Path

import click

from bigearthnet.commandline import echo, end_on_interrupt, show_progress
from bigearthnet.look.picture import PICTURES, STRETCHES, Stretch
from bigearthnet.quantity import format_count
from converter.commands.cli import PATH

_N_DRAWN = 20
"""Patches of a whole store or archive that are drawn if nothing is said."""


@click.command()
@click.argument("source", type=PATH)
@click.argument("patch_ids", nargs=-1, metavar="[PATCH]...")
@click.option("--sheet", type=PATH, metavar="FILE.png", help="Write one contact sheet.")
@click.option("--out", type=PATH, metavar="DIR", help="Write one PNG a patch and picture to DIR.")
@click.option("--where", metavar="SQL", help="Only patches that meet a condition over the table of a store.")
@click.option(
    "--random",
    "n",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"N of them at most, drawn at random.  [default: {_N_DRAWN} if neither PATCH nor --where is given, else all]",
)
@click.option("--seed", type=int, default=0, help="Another seed draws other patches.")
@click.option(
    "--what",
    type=click.Choice(list(PICTURES), case_sensitive=False),
    multiple=True,
    metavar="PICTURE",
    help=f"What to draw: {', '.join(PICTURES)}; again for more.  [default: rgb, s1 or map, whichever there is first]",
)
@click.option(
    "--stretch",
    type=click.Choice(list(STRETCHES)),
    default="fixed",
    help="fixed ranges make patches comparable; percentile (2 to 98) and full use all brightness for each.",
)
@click.option(
    "--scale",
    type=click.IntRange(min=1),
    default=2,
    help="Pixels of the picture to one of 10 m; those of 20 m and 60 m are repeated to the same size.",
)
def command(
    source: Path,
    patch_ids: tuple[str, ...],
    *,
    sheet: Path | None,
    out: Path | None,
    where: str | None,
    n: int | None,
    seed: int,
    what: tuple[str, ...],
    stretch: Stretch,
    scale: int,
) -> None:
    """Draw patches of SOURCE as PNG, on one contact sheet or a file each.

    SOURCE is a store, or an archive of Sentinel-2, of Sentinel-1 or of reference maps, extracted or as the file that
    was downloaded, or a single patch folder. A sheet has the labels, date, country, split and name under each patch;
    archives of v1.0 do not tell the country and split, those of v2.0 have them in the metadata in or beside them.

    \b
    Pictures:
      rgb            B04, B03, B02 as red, green and blue, white from a reflectance of 0.16
      false-colour   B08, B04, B03: plants red, water black
      s1             VV, VH and VV - VH in dB
      map            CORINE classes in their official colours, with a legend on the sheet
      B05, VV, ...   one band, from dark blue to yellow

    \b
    Examples:
      ben-convert preview STORE --sheet look.png
      ben-convert preview STORE S2A_MSIL2A_20170617T113321_36_85 --out pictures
      ben-convert preview STORE --where "country = 'Finland' and contains_seasonal_snow"
          --random 12 --what rgb --what false-colour --sheet snow.png
      ben-convert preview BigEarthNet-v1.0 --random 50 --seed 1 --out pictures
      ben-convert preview BigEarthNet-v1.0/S2A_MSIL2A_20170617T113321_36_85 --what B11 --out pictures
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    if (sheet is None) == (out is None):
        raise click.UsageError("expected either --sheet FILE.png or --out DIR")
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise click.UsageError(f"--sheet: expected a file name that ends in .png, found {sheet}")
    if n is None and not patch_ids and where is None:
        n = _N_DRAWN
    with end_on_interrupt():
        from bigearthnet.look.album import Choice, open_album  # noqa: PLC0415
        from bigearthnet.look.preview import PreviewOptions, write_pictures, write_sheet  # noqa: PLC0415

    options = PreviewOptions(what, stretch, scale)
    album = open_album(source, Choice(patch_ids, where, n, seed))
    with show_progress("Drawing") as show:
        if sheet is not None:
            written = f"{format_count(write_sheet(album, options, sheet, show), 'patch')} to {sheet}"
        elif out is not None:
            written = f"{format_count(write_pictures(album, options, out, show), 'picture')} to {out}"
    echo(f"Wrote {written}")
