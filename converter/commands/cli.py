"""The command line of the converter. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from bigearthnet import __version__
from bigearthnet.commandline import SETTINGS, Commands

COMMANDS: Final = ("convert", "verify", "info", "query", "preview", "export", "stage", "report", "sample")
"""Modules of `converter.commands`, in the order in which the help lists them."""

Command = TypeVar("Command", bound=Callable[..., Any])

PATH: Final = click.Path(path_type=Path)
"""Type of every parameter that is a path."""


def cluster_options(command: Command) -> Command:
    """Add the options that say which processes work."""
    for option in (
        click.option(
            "--worker-wait",
            "worker_wait_s",
            type=float,
            default=60,
            metavar="SECONDS",
            help="How long to wait, while there is no worker, for one to come.",
        ),
        click.option(
            "--scheduler",
            metavar="ADDRESS|FILE",
            help="Use a running dask cluster instead of starting one: an address such as tcp://head:8786, or the file "
            "of `dask scheduler --scheduler-file`. Its workers may come and go.",
        ),
        click.option("--workers", type=int, help="Worker processes to start.  [default: one a core]"),
    ):
        command = option(command)
    return command


@click.group(cls=Commands, package=__package__, names=COMMANDS, context_settings={**SETTINGS, "show_default": True})
@click.version_option(__version__, prog_name="ben-convert")
def cli() -> None:
    """Pack the raw BigEarthNet archive once into a store that trains fast.

    \b
    A store is a folder:
      images.zarr       sharded Zarr v3, native resolution, bit-identical pixels
      patches.parquet   GeoParquet: labels, splits, times, footprints; row i = index i of every array

    \b
    Try it without the archive:
      ben-convert sample data/sample
      ben-convert convert data/sample data/sample-store
      ben-convert info data/sample-store

    Exit codes: 0 success, 1 failed work (one message says what and what to do), 2 wrong usage, 130 interrupted.
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
