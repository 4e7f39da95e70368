"""The command line: parse, build options, make one library call, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from trainer.bench import StreamSpeed, measure_stream
from trainer.commands.compare import compare
from trainer.commands.evaluate import evaluate
from trainer.commands.export import export
from trainer.commands.fit import fit
from trainer.commands.predict import predict
from trainer.commands.report import report
from trainer.errors import TrainerError
from trainer.model import CHECKS
from trainer.options import AUGMENTS, StreamOptions
from trainer.order import ORDERS
from trainer.store import Selection, open_store

_DEFAULTS = StreamOptions()


def _add_selection(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options by which patches are selected."""
    for option in reversed(
        [
            click.argument("store"),
            click.option(
                "--split", help="Only this official split: train, validation or test.  [default: all patches]"
            ),
            click.option(
                "--where",
                metavar="SQL",
                help="Only patches for which this DuckDB condition on the columns of patches.parquet holds, such as "
                "\"country = 'Finland' and not list_contains(labels_19, 'Marine waters')\".",
            ),
            click.option(
                "--recommended/--all",
                default=True,
                show_default=True,
                help="Leave out patches with snow, cloud or shadow or without a 19-class label, or take them too.",
            ),
            click.option(
                "--labels", type=click.Choice(["19", "43"]), default="19", show_default=True, help="Number of classes."
            ),
        ]
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Train from a BigEarthNet store, which `python -m converter` writes.

    STORE is the folder of a store, or a URL such as s3://bucket/store or https://host/store.
    """


@cli.command()
@_add_selection
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def select(store: str, split: str | None, where: str | None, *, recommended: bool, labels: str, as_json: bool) -> None:
    """Show what a selection holds, to try a condition before training on it.

    \b
    Example:
      python -m trainer select STORE --split train --where "season = 'Summer'"
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    found = _select(store, split, where, recommended, labels)
    counts = dict(zip(found.classes, found.labels.sum(0).astype(int).tolist(), strict=True))
    if as_json:
        click.echo(json.dumps({"patches": len(found), "classes": counts}, indent=2))
        return
    click.echo(f"{len(found):,} of {found.store.n_patches:,} patches\n")
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        click.echo(f"{count:>9,}  {count / len(found):6.1%}  {name}")


@cli.command()
@_add_selection
@click.option(
    "--bands", default="all", show_default=True, help="Bands or sets of bands, separated by commas: all, rgb, s2, B08."
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
    "--augment",
    type=click.Choice(AUGMENTS),
    default=_DEFAULTS.augment,
    show_default=True,
    help="turns: each patch once per quarter turn; random: a random symmetry. Needs --split train.",
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
def bench(
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
      python -m trainer bench STORE --bands rgb --threads 4
    """  # noqa: D301 - see above
    chosen = StreamOptions(**options | ({} if threads is None else {"threads": threads}))
    speed = measure_stream(_select(store, split, where, recommended, labels), chosen, seconds)
    click.echo(json.dumps(_to_json(speed, chosen), indent=2) if as_json else _describe(speed, chosen))


cli.add_command(fit)
cli.add_command(evaluate)
cli.add_command(predict)
cli.add_command(export)
cli.add_command(compare)
cli.add_command(report)


def main() -> None:
    """Run the command line: exit 0 on success, 1 on an error (one line), 2 on wrong usage."""
    try:
        cli()
    except TrainerError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


def _select(store: str, split: str | None, where: str | None, recommended: bool, labels: str) -> Selection:
    return open_store(store).select(split, where=where, recommended=recommended, labels=int(labels))


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
