"""`ben-train bench`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from bigearthnet.commandline import echo
from trainer.commands.options import add_fields, add_selection, add_threads, select_from, take_choice
from trainer.stream.options import StreamOptions
from trainer.stream.speed import StreamSpeed, measure_stream

_STREAM_OPTIONS = {
    "bands": "Bands or sets of bands, joined by commas or +: all, rgb, 10m, s2, s1, B08.",
    "batch_size": "Patches of a batch.",
    "order": "global shuffles all patches; window some whole shards at a time, for remote stores and spinning disks; "
    "sequential is the order of the store.",
    "window": "Shards in a window.",
    "turns": "each-quarter: each patch in its four quarter turns; one-of-eight: in one of its symmetries, drawn anew "
    "for each epoch. Needs --split train.",
    "check": "When to compare the crc32c of a chunk: the first time that it is read, always or never.",
}


@click.command()
@add_selection
@add_fields(StreamOptions(), _STREAM_OPTIONS)
@add_threads
@click.option("--seconds", default=5.0, show_default=True, help="How long to stream.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, seconds: float, as_json: bool, threads: int | None, **options: Any) -> None:
    """Measure how fast batches come, without any model.

    If your model takes fewer patches a second than this, the data are not what it waits for. The first run after a
    start reads the disk; repeat it to see what memory gives.

    \b
    Example:
      ben-train bench STORE --bands rgb --threads 4
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    selection = select_from(**take_choice(options))
    chosen = StreamOptions(**options | ({} if threads is None else {"threads": threads}))
    speed = measure_stream(selection, chosen, seconds)
    rates = {"patches_per_s": speed.patches_per_s, "mb_per_s": speed.bytes_per_s / 1e6}
    values = {**rates, **asdict(speed), "options": asdict(chosen)}
    echo(json.dumps(values, indent=2) if as_json else _describe(speed, chosen))


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
