"""`ben-convert info`: say what a finished store holds."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bigearthnet.commandline import echo, end_on_interrupt
from converter.commands.cli import PATH


@click.command()
@click.argument("store", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(store: Path, *, as_json: bool) -> None:
    """Say what the finished store STORE holds: arrays, ratio, provenance, counts per split, class and country."""
    with end_on_interrupt():
        from bigearthnet.store.summary import describe_store  # noqa: PLC0415
        from converter.commands.descriptions import describe_info  # noqa: PLC0415

    description = describe_store(store)
    echo(json.dumps(description, indent=2) if as_json else describe_info(description))
