"""`ben-train bench`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from trainer.commands.selection import add_selection, select_from
from trainer.source.read import CHECKS
from trainer.stream.options import TURNS, StreamOptions
from trainer.stream.order import ORDERS
from trainer.stream.speed import StreamSpeed, measure_stream

_DEFAULTS = StreamOptions()


@click.command()
@add_selection
@click.option(
    "--bands",
    default="all",
    show_default=True,
    help="Bands or sets of bands, joined by commas or +: all, rgb, 10m, s2, s1, B08.",
)
@click.option("--batch-size", default=_DEFAULTS.batch_size, show_default=True, help="Patches of a batch.")
@click.option("--threads", type=int, help="Threads that decode.  [default: one a core, up to 8]")
@click.option(
    "--order",
    type=click.Choice(ORDERS),
    default=_DEFAULTS.order,
    show_default=True,
    help="global shuffles all patches; window some whole shards at a time, for remote stores and spinning disks; "
    "sequential is the order of the store.",
)
@click.option("--window", default=_DEFAULTS.window, show_default=True, help="Shards in a window.")
@click.option(
    "--turns",
    type=click.Choice(TURNS),
    default=_DEFAULTS.turns,
    show_default=True,
    help="each-quarter: each patch in its four quarter turns; one-of-eight: in one of its symmetries, drawn anew for "
    "each epoch. Needs --split train.",
)
@click.option(
    "--check",
    type=click.Choice(CHECKS),
    default=_DEFAULTS.check,
    show_default=True,
    help="When to compare the crc32c of a chunk: the first time that it is read, always or never.",
)
@click.option("--seconds", default=5.0, show_default=True, help="How long to stream.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    store: str,
    split: str | None,
    where: str | None,
    *,
    recommended: bool,
    labels: str,
    seconds: float,
    as_json: bool,
    threads: int | None,
    **options: Any,
) -> None:
    """Measure how fast batches come, without any model.

    If your model takes fewer patches a second than this, the data are not what it waits for. The first run after a
    start reads the disk; repeat it to see what memory gives.

    \b
    Example:
      ben-train bench STORE --bands rgb --threads 4
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    chosen = StreamOptions(**options | ({} if threads is None else {"threads": threads}))
    speed = measure_stream(select_from(store, split, where, recommended, labels), chosen, seconds)
    click.echo(json.dumps(_to_json(speed, chosen), indent=2) if as_json else _describe(speed, chosen))


def _to_json(speed: StreamSpeed, options: StreamOptions) -> dict[str, Any]:
    return {
        "patches_per_s": speed.patches_per_s,
        "mb_per_s": speed.bytes_per_s / 1e6,
        **asdict(speed),
        "options": asdict(options),
    }


def _describe(speed: StreamSpeed, options: StreamOptions) -> str:
    return "\n".join(
        [
            f"{speed.patches_per_s:,.0f} patches/s, {speed.bytes_per_s / 1e6:,.0f} MB/s of pixels "
            f"({speed.patch_bytes:,} bytes a patch, {options.threads} threads, order {options.order}, "
            f"batches of {options.batch_size})",
            "",
            f"{speed.first_batch_s * 1e3:10,.1f} ms  to the first batch",
            f"{speed.order_s * 1e3:10,.1f} ms  to order an epoch",
            f"{speed.decode_us:10,.1f} us  a patch and thread to decode",
            f"{speed.check_us:10,.1f} us  a patch and thread to compare checksums",
            f"{speed.hand_over_us:10,.1f} us  a patch of the caller's time",
        ]
    )
